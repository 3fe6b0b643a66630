"""A host that is an ordinary user in the engine's group: what works, and what is refused with its reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from .dockerd import Dockerd

UID = 64_244
DEADLINE_S = 100
HOST = """
import json, os, sys, anyio
from kandev_docker import DockerSettings, open_runtime
from kandev_host import Environment, Mount, ProcessSpec, errors

def sh(script, **fields):
    return ProcessSpec(workspace_id="w1", command=("sh", "-c", script), **fields)

async def main():
    told, (data, mine, settings) = {}, sys.argv[1:]
    async with open_runtime(DockerSettings(**json.loads(settings)), Environment(data, "0")) as runtime:
        found = await runtime.probe()
        if not found.ok:
            print(json.dumps({"unusable": f"{found.reason} | {found.fix}"}))
            return
        await runtime.prepare("w1")
        told["probe"] = found.details["allowlist"]
        told["uids"] = [os.getuid(), int((await runtime.run(sh("id -u; echo text > file"))).stdout)]
        told["owner"] = os.stat(f"{data}/containers/w1/workspace/file").st_uid
        for _ in range(2):
            read_only = await runtime.run(sh("cat file; echo > file; cat /proc/1/environ", read_only=True))
        told["beside"] = [read_only.stdout.decode(), len([each for each in await runtime._found() if each.sidecar])]
        mount = Mount(mine, "/mine")
        told["mount"] = (await runtime.run(sh("cat /mine", mounts=(mount,)))).stdout.decode()
        async with runtime.spawn(sh("echo up; sleep 600")) as process:
            await process.receive()
            await process.kill()
            told["killed"] = await process.wait()
        async with runtime.spawn(sh("cat; exit 3", adoptable=True)) as process:
            await process.send(b"said")
            told["said"] = (await process.receive()).decode()
            told["adoptable"] = process.adoptable
        async with runtime.open_shell(ProcessSpec(workspace_id="w1", command=("/bin/sh",))) as shell:
            told["shell"] = (await shell.run("echo $((6 * 7))")).stdout.decode()
        for name, fields in {
            "allowlist": {"network": "allowlist", "allow": ("example.org",)},
            "service": {"allow": ("127.0.0.1:9",)},
            "protected": {"protected": ("file",)},
        }.items():
            try:
                await runtime.run(sh("true", **fields))
            except errors.Unavailable as error:
                told[name] = error.message + " | " + error.details["fix"]
        await runtime.remove("w1")
    print(json.dumps(told))

anyio.run(main)
"""


@pytest.fixture
def group(dockerd: Dockerd) -> Iterator[None]:
    """The engine's socket belongs to this user's group, as that of Debian's to the group docker."""
    os.chown(dockerd.socket, 0, UID)
    os.chmod(dockerd.socket, 0o660)
    dockerd.folder.chmod(0o711)
    yield
    dockerd.folder.chmod(0o700)
    os.chown(dockerd.socket, 0, 0)


def run(becoming: Callable[..., list[str]], home: Path, uid: int, **settings: Any) -> dict[str, Any]:
    """What a host of this user tells of the engine."""
    (home / "mine").write_text("mine")
    for path in (home, home / "mine"):
        os.chown(path, uid, uid)
    table = json.dumps({"pull": "never", **settings})
    command = [*becoming(uid, home), sys.executable, "-c", HOST, str(home / "data"), str(home / "mine"), table]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_an_ordinary_user_in_the_engines_group_has_all_but_what_needs_root(
    sdk: docker.APIClient, dockerd: Dockerd, group: None, tmp_path: Path, becoming: Callable[..., list[str]]
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    told = run(becoming, home, UID, socket=dockerd.socket)
    assert (told["uids"], told["owner"]) == ([UID, UID], UID)
    assert told["beside"] == ["text\n", 1]
    assert (told["mount"], told["killed"], told["shell"]) == ("mine", -9, "42\n")
    assert (told["said"], told["adoptable"]) == ("said", True)
    assert "does not run as root" in told["probe"]
    for refused in ("allowlist", "service"):
        assert "This host does not run as root" in told[refused]
        assert "run the host as root" in told[refused]
    assert "protected by root beside the engine only" in told["protected"]
    assert sdk.containers(all=True) == []
    os.chown(dockerd.socket, 0, 0)
    assert "adduser USER docker" in run(becoming, home, UID, socket=dockerd.socket)["unusable"]
