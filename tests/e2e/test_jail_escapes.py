"""A hostile agent in its jail, and the links it plants for the host to follow."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import kandev_agents.demo
from kandev_host.client import Client

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
PROBE = Path(__file__).with_name("jail_probe.py")
REFUSED = [
    "gateway", "gateway over ipv6", "any address", "outside", "abstract sockets", "vsock", "token", "database",
    "data folder", "other workspace", "other workspace through /proc", "secrets of root", "shadow",
    "foreign processes", "kill the host", "core pattern", "sysrq", "mount", "remount", "umount", "pivot", "chroot",
    "user namespace", "network namespace", "enter a namespace", "become root", "set-uid program", "disk",
    "make a device", "open by handle", "kernel log", "module", "clock", "terminal", "write in the system",
    "write in /usr/bin", "write in /etc", "write in /", "write in /root", "write in /dev", "write in /var/lib",
    "write in /opt", "write in /home", "write in /lib", "write in /proc/1/root/usr",
]  # fmt: skip


@pytest.fixture(scope="module")
def neighbour() -> Iterator[int]:
    """The port of a service of this host that agents are allowed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _greet(server: socket.socket) -> None:
    while True:
        try:
            with server.accept()[0] as peer:
                peer.sendall(b"hello")
        except OSError:
            return


@pytest.fixture(scope="module")
def jail_host(make_host: Any, neighbour: int, tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("user")
    (home / ".login" / "inner").mkdir(parents=True)
    (home / ".login" / "inner" / "key").write_text("key")
    shared = home / "shared-agent"
    with zipfile.ZipFile(home / "agent.zip", "w") as archive:
        for file in Path(kandev_agents.demo.__path__[0]).glob("*.py"):
            archive.write(file, f"demo/{file.name}")
        archive.writestr("__main__.py", "from demo.agent import main\nmain()\n")
    shared.write_bytes(f"#!{sys.executable}\n".encode() + (home / "agent.zip").read_bytes())
    shared.chmod(0o755)
    # Not in volumes: the tests look from outside at what the agents left, and the folders are there to be reached.
    config = f"""
[runtime.bwrap]
disk = "watch"
[agents.demo]
allow = ["127.0.0.1:{neighbour}"]
[agents.shared]
command = ["{shared}"]
mode = "ask"
login_files = [".login/inner/key"]
share_login = [".login/inner/key"]
"""
    return make_host(config, HOME=str(home), SECRET_OF_THE_USER="hunter2")


@pytest.fixture
async def client(jail_host: Any) -> AsyncIterator[Client]:
    said = len(jail_host.log())
    async with Client.connect(jail_host.url, jail_host.token) as client:
        yield client
        assert (await client.call("health.check"))["status"] == "ok"
    assert "Traceback" not in jail_host.log()[said:]


async def new_task(client: Client, repository: Path | None = None) -> str:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    payload = {"board_id": board["id"], "title": "Work", "description": "", "agent_type": "demo"}
    if repository is not None:
        payload["repository_url"] = str(repository)
    return str((await client.call("task.create", payload))["task"]["id"])


async def run(client: Client, task_id: str, *commands: str, agent_type: str = "demo") -> dict[str, Any]:
    """Let an agent run these commands in its workspace, and end it; its status."""
    prompt = "\n".join(f"run: {command}" for command in commands)
    payload = {"task_id": task_id, "prompt": prompt, "preset": "unattended", "agent_type": agent_type}
    agent = (await client.call("agent.launch", payload))["agent"]
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action in {"acp.result", "acp.error"} and message.payload["agent_id"] == agent["id"]:
                break
    status = await client.call("agent.status", {"agent_id": agent["id"]})
    if status["status"] == "RUNNING":
        await client.call("agent.stop", {"agent_id": agent["id"], "force": True})
    return dict(status)


def workspace(host: Any, task_id: str) -> Path:
    return Path(host.home) / "workspaces" / task_id / "workspace"


@pytest.fixture(scope="module")
def loot() -> dict[str, Any]:
    return {}


@pytest.fixture
async def probed(
    jail_host: Any, client: Client, repository: Path, loot: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the probe got, run once for the module beside a workspace that is another task's."""
    if not loot:
        canary = tmp_path_factory.mktemp("canary")
        canary.chmod(0o777)
        other = await new_task(client)
        await run(client, other, "echo private > secret.txt")
        task_id = await new_task(client, repository)
        await run(client, task_id, "true")
        home = jail_host.home
        (workspace(jail_host, task_id) / "probe.py").write_text(PROBE.read_text())
        (workspace(jail_host, task_id) / "probe.py").chmod(0o644)
        port, pid = jail_host.url.rpartition(":")[2], jail_host.process.pid
        await run(
            client,
            task_id,
            f"python3 probe.py out.json {port} {home} {workspace(jail_host, other)} {canary} {pid} > out.txt 2>&1",
        )
        out = workspace(jail_host, task_id)
        assert (out / "out.json").exists(), (out / "out.txt").read_text()
        loot.update(json.loads((out / "out.json").read_text()), canary=os.listdir(canary))
    return loot


@pytest.mark.parametrize("what", REFUSED)
async def test_the_jail_refuses(probed: dict[str, Any], what: str) -> None:
    assert probed[what] is None


async def test_what_is_written_to_other_places_stays_in_the_jail(probed: dict[str, Any]) -> None:
    assert probed["canary"] == []


async def test_no_secret_is_in_an_environment_or_on_a_command_line(jail_host: Any, probed: dict[str, Any]) -> None:
    names = ("environment of the first process", "own environment", "arguments of the first process")
    text = "\n".join(str(probed[name]) for name in names)
    for secret in (jail_host.token, "hunter2", str(jail_host.home)):
        assert secret not in text


async def test_no_descriptor_of_the_host_reaches_the_jail(probed: dict[str, Any]) -> None:
    harmless = ("pipe:", "anon_inode:[eventfd]", "anon_inode:[signalfd]", "/dev/null")
    descriptors = [*probed["descriptors"], *probed["descriptors of the first process"]]
    assert [name for name in descriptors if not name.startswith((*harmless, "/proc/", "/workspace/"))] == []


async def test_the_jail_has_no_capability_and_gains_none(probed: dict[str, Any]) -> None:
    assert int(probed["capabilities"], 16) == 0
    assert probed["no new privileges"] == "1"


async def test_the_jail_has_no_device_of_the_host(probed: dict[str, Any]) -> None:
    usual = {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "console"}
    assert {Path(name).name for name in probed["devices"]} <= usual


async def test_an_allowed_service_is_reached_and_no_other(jail_host: Any, client: Client, neighbour: int) -> None:
    task_id = await new_task(client)
    port = jail_host.url.rpartition(":")[2]
    script = "import socket,sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20).recv(9))"
    await run(
        client,
        task_id,
        f'python3 -c "{script}" {neighbour} > allowed.txt 2>&1; true',
        f'python3 -c "{script}" {port} > gateway.txt 2>&1; true',
    )
    assert "hello" in (workspace(jail_host, task_id) / "allowed.txt").read_text()
    assert "refused" in (workspace(jail_host, task_id) / "gateway.txt").read_text().lower()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Files that no clean-up may touch, where anybody could write."""
    folder = tmp_path / "outside"
    (folder / "inner").mkdir(parents=True)
    (folder / "precious").write_text("precious")
    (folder / "inner" / "too").write_text("precious")
    before = state(folder)
    yield folder
    assert state(folder) == before


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        info = path.lstat()
        found[str(path)] = (info.st_uid, info.st_gid, info.st_mode, info.st_nlink, path.is_file() and path.read_bytes())
    return found


LINKS = (
    "rm -rf /home/agent/* /home/agent/.[a-z]* /tmp/*; for place in /workspace /home/agent /tmp; do cd $place; "
    "ln -s {outside} a; ln -s {outside}/precious b; mkdir -p c/d; ln -s {outside}/inner c/d/e; ln -s / root; done"
)


async def test_deleting_a_task_follows_no_link(jail_host: Any, client: Client, outside: Path) -> None:
    task_id = await new_task(client)
    await run(client, task_id, LINKS.replace("{outside}", str(outside)))
    await client.call("task.delete", {"task_id": task_id, "force": True})
    assert not workspace(jail_host, task_id).parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_what_is_mounted_in_a_workspace_is_not_deleted(jail_host: Any) -> None:
    """The task is gone, the folder is there until what was mounted is not."""
    async with Client.connect(jail_host.url, jail_host.token) as client:
        task_id = await new_task(client)
        await run(client, task_id, "mkdir mounted")
        place = workspace(jail_host, task_id) / "mounted"
        subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
        try:
            (place / "precious").write_text("precious")
            removed = (await client.call("task.delete", {"task_id": task_id, "force": True}))["removed"]
            assert not removed["workspace"]
            assert str(place.parent.parent) in removed["workspace_left"]
            assert (place / "precious").read_text() == "precious"
        finally:
            subprocess.run(["umount", str(place)], check=True)
    await anyio.to_thread.run_sync(jail_host.stop)
    await anyio.to_thread.run_sync(jail_host.start)
    assert jail_host.recovered["workspaces_removed"] == [task_id]
    assert not place.parent.exists()


async def test_a_log_in_is_not_shown_through_a_planted_link(client: Client) -> None:
    """bwrap would follow the link and make its mount point where it leads, outside of the jail."""
    task_id = await new_task(client)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as everybodys:  # /tmp is covered while bwrap works
        os.chmod(everybodys, 0o777)
        await run(client, task_id, f"rm -rf ~/.login; ln -s /oldroot{everybodys} ~/.login")
        status = await run(client, task_id, "ls -R ~ > seen.txt", agent_type="shared")
        assert os.listdir(everybodys) == []
    assert status["status"] == "FAILED"
    assert ".login" in status["error_message"]


async def test_a_shared_log_in_can_be_read_and_not_written(jail_host: Any, client: Client) -> None:
    task_id = await new_task(client)
    script = (
        "cat ~/.login/inner/key > seen.txt; echo x > ~/.login/inner/new; "
        "(echo x > ~/.login/inner/key; chmod 777 ~/.login/inner/key; rm ~/.login/inner/key) 2>> seen.txt; true"
    )
    await run(client, task_id, script, agent_type="shared")
    seen = (workspace(jail_host, task_id) / "seen.txt").read_text()
    assert seen.startswith("key")
    assert (seen.count("Read-only file system"), seen.count("Device or resource busy")) == (2, 1)
    users = Path(jail_host.env["HOME"]) / ".login/inner"
    assert [(file.name, file.read_text()) for file in users.iterdir()] == [("key", "key")]


async def test_a_set_uid_file_made_in_a_jail_is_in_nobodys_reach(jail_host: Any, client: Client) -> None:
    task_id = await new_task(client)
    await run(client, task_id, "cp /bin/sh shell; chmod 6777 shell")
    file = workspace(jail_host, task_id) / "shell"
    assert file.stat().st_uid != 0 or os.geteuid() != 0
    for folder in list(file.parents)[1:3]:
        assert folder.stat().st_mode & 0o077 == 0


async def test_the_token_is_nowhere_but_in_its_file(jail_host: Any, client: Client) -> None:
    await run(client, await new_task(client), "env > env.txt")
    found = subprocess.run(
        ["grep", "-rlF", jail_host.token, str(jail_host.home.parent)], capture_output=True, text=True, check=False
    ).stdout
    assert found.split() == [str(jail_host.home / "token")]
    assert (jail_host.home / "token").stat().st_mode & 0o777 == 0o600
    assert jail_host.home.stat().st_mode & 0o777 == 0o700
