"""The container beside a workspace: one for the host's short commands, and nothing of one of them for the next."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from kandev_docker import sidecars
from kandev_host import Mount, ProcessSpec, errors

from .dockerd import Dockerd

pytestmark = pytest.mark.anyio
DEADLINE_S = 60
PROBE = """
import json, os, pathlib
def lines(path):
    return pathlib.Path(path).read_text().splitlines()
kept = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp")
mounts = [line.split() for line in lines("/proc/self/mountinfo")]
print(json.dumps({
    "status": [line for line in lines("/proc/self/status") if line.startswith(kept)],
    "limits": lines("/proc/self/limits"),
    "environment": dict(os.environ),
    "cwd": os.getcwd(),
    "mounts": sorted((words[4], words[5]) for words in mounts),
    "descriptors": len(os.listdir("/proc/self/fd")),
    "network": lines("/proc/net/dev"),
    "hostname": os.uname().nodename,
}))
"""
HOST = """
import sys, anyio
from kandev_docker import DockerSettings, open_runtime
from kandev_host import Environment, ProcessSpec

async def main():
    async with open_runtime(DockerSettings(socket=sys.argv[2], pull="never"), Environment(sys.argv[1], "0")) as runtime:
        await runtime.prepare("w1")
        async with anyio.create_task_group() as tasks:
            command = ("sh", "-c", "echo up > ~/up; sleep 600")
            tasks.start_soon(runtime.run, ProcessSpec(workspace_id="w1", command=command, read_only=True))
            while (await runtime.run(ProcessSpec(workspace_id="w1", command=("cat", "/home/agent/up")))).exit_code:
                await anyio.sleep(0.1)
            print("up", flush=True)

anyio.run(main)
"""


def sh(script: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("sh", "-c", script), read_only=True, **fields)


def beside(sdk: docker.APIClient) -> list[str]:
    found = sdk.containers(filters={"label": "kandev.label.purpose=sidecar"})
    return [each["Id"] for each in found]


def busy(sdk: docker.APIClient) -> bool:
    """Does a command run in one?"""
    return any(len(sdk.top(each)["Processes"]) > 2 for each in beside(sdk))


async def until(holds: Any, *arguments: Any) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not await anyio.to_thread.run_sync(holds, *arguments):
            await anyio.sleep(0.05)


async def test_commands_that_see_the_same_share_a_container_and_are_held_as_in_one_of_their_own(
    runtime: Any, sdk: docker.APIClient, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    probe = ProcessSpec(workspace_id="w1", command=("python3", "-c", PROBE), read_only=True, env={"MINE": "1"})
    results: dict[str, Any] = {}

    async def ask(name: str) -> None:
        results[name] = json.loads((await runtime.run(probe)).stdout)

    await ask("shared")
    [first] = beside(sdk)
    assert (await runtime.run(sh("cat; echo err >&2; exit 3"), stdin=b"in")).stdout == b"in"
    assert beside(sdk) == [first]
    async with anyio.create_task_group() as tasks:  # while that is taken, another has its own
        tasks.start_soon(runtime.run, sh("until [ -e ~/go ]; do sleep 0.05; done"))
        await until(busy, sdk)
        await ask("own")
        await runtime.run(ProcessSpec(workspace_id="w1", command=("touch", "/home/agent/go")))
    assert results["shared"] == results["own"]
    assert results["shared"]["environment"]["MINE"] == "1"
    for other in (
        ProcessSpec(workspace_id="w1", command=("true",)),
        sh("true", network="host"),
        sh("true", mounts=(Mount(str(mine), "/mnt"),)),
    ):
        assert (await runtime.run(other)).exit_code == 0
    assert beside(sdk) == [first]
    assert await runtime.list_owned() == []
    await runtime.remove("w1")
    assert sdk.containers(all=True) == []


@pytest.mark.parametrize(
    "script",
    [
        "(setsid sleep 600 &)",
        "(setsid sleep 600 >/dev/null 2>&1 &)",
        "echo > /var/tmp/evil",
        "echo > /dev/shm/evil",
        "python3 -c 'import ctypes; assert ctypes.CDLL(None).shmget(7, 4096, 0o1666) >= 0'",
    ],
)
async def test_nothing_of_a_command_reaches_the_next(runtime: Any, sdk: docker.APIClient, script: str) -> None:
    look = sh("ls -A /var/tmp /dev/shm; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
    clean = (await runtime.run(look)).stdout
    [first] = beside(sdk)
    assert (await runtime.run(sh(script))).exit_code == 0
    after = (await runtime.run(look)).stdout
    assert b"evil" not in after
    assert b"sleep" not in after
    assert after.splitlines()[:3] == clean.splitlines()[:3]
    assert first not in beside(sdk)


async def test_a_command_cannot_touch_what_keeps_the_container(runtime: Any, sdk: docker.APIClient) -> None:
    script = "for each in 1 $(pgrep cat); do kill -9 $each; cat /proc/$each/environ; done; kill -9 -1; exit 0"
    result = await runtime.run(sh(script))
    assert (result.exit_code, result.stdout) == (0, b"")
    [first] = beside(sdk)
    await runtime.run(sh("true"))
    assert beside(sdk) == [first]


async def test_the_end_of_a_command_by_force_is_the_end_of_it_alone(runtime: Any, sdk: docker.APIClient) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.run, sh("until [ -e ~/go ]; do sleep 0.05; done", snapshots=False))
        await until(lambda: len(beside(sdk)) == 1)
        [other] = beside(sdk)
        with pytest.raises(errors.TimedOut):
            await runtime.run(ProcessSpec(workspace_id="w1", command=("sleep", "600"), pin_git=False), timeout_s=2)
        with anyio.move_on_after(2):
            await runtime.run(ProcessSpec(workspace_id="w1", command=("sleep", "600"), pin_git=False))
        assert [each["Id"] for each in sdk.containers(all=True)] == [other]
        await runtime.run(ProcessSpec(workspace_id="w1", command=("touch", "/home/agent/go")))


async def test_one_that_dies_is_noticed_and_made_anew(runtime: Any, sdk: docker.APIClient) -> None:
    await runtime.run(sh("true"))
    await anyio.to_thread.run_sync(sdk.kill, beside(sdk)[0])
    assert (await runtime.run(sh("echo again"))).stdout == b"again\n"

    async def kill() -> None:
        await until(busy, sdk)
        await anyio.to_thread.run_sync(sdk.kill, beside(sdk)[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        with anyio.fail_after(DEADLINE_S):
            result = await runtime.run(sh("sleep 600"))
    assert result.exit_code in {-9, 137}
    assert (await runtime.run(sh("echo again"))).stdout == b"again\n"


async def test_one_that_nobody_needs_ends(runtime: Any, sdk: docker.APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecars, "IDLE_S", 0.3)
    await runtime.run(sh("true"))
    await until(lambda: sdk.containers(all=True) == [])
    monkeypatch.undo()
    monkeypatch.setattr(sidecars, "AT_ONCE", 1)
    await runtime.run(sh("true"))
    await runtime.run(ProcessSpec(workspace_id="w1", command=("true",), pin_git=False))
    await until(lambda: len(sdk.containers(all=True)) == 1)


async def test_p4_a_killed_host_leaves_no_container_beside_a_workspace(
    opener: Any, dockerd: Dockerd, sdk: docker.APIClient, tmp_path: Path
) -> None:
    """It ends with its host; the next one removes what is left of it."""
    command = [sys.executable, "-c", HOST, str(tmp_path / "data"), dockerd.socket]
    host = await anyio.open_process(command, stderr=None)
    try:
        assert host.stdout is not None
        with anyio.fail_after(DEADLINE_S):
            assert await BufferedByteReceiveStream(host.stdout).receive_until(b"\n", 100) == b"up"
        assert len(beside(sdk)) == 1
    finally:
        host.kill()
        await host.aclose()
    await until(lambda: beside(sdk) == [])
    async with opener():
        assert sdk.containers(all=True) == []
