"""kill -9 of a whole host, with shells, an agent and a proxy at work: what stays of it on the machine, before the next
start and after that has ended as well. Nothing does."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError
from kandev_sandbox import cgroups
from kandev_sandbox.processes import Identity, identify, tree

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
GONE_S = 30  # 10 s are promised; a busy machine may take three times as long
OUTSIDE = "127.0.0.2"  # not a name of this machine whose ports are forwarded: it is reached through the proxy
VOLUMES = os.geteuid() == 0 and os.path.exists("/dev/loop-control")


@dataclass(frozen=True)
class Traces:
    """What a host with this data folder has on the machine, whatever else runs there."""

    processes: frozenset[str] = frozenset()
    mounts: frozenset[str] = frozenset()
    loops: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()

    def kinds(self) -> set[str]:
        """Of which there is something."""
        return {field.name for field in fields(self) if getattr(self, field.name)}


class Machine:
    """Looks for the traces of one data folder. What a host has started is kept."""

    def __init__(self, home: Path, temporary: Path) -> None:
        self.home = home
        self.temporary = temporary
        self.owner = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
        self.known: set[Identity] = set()
        self.hosts: set[int] = set()

    def remember(self, host: int) -> None:
        self.hosts.add(host)
        self.known |= {who for who in map(identify, tree(host)) if who is not None}

    def now(self) -> Traces:
        loops = self.loops()
        mounts = set(self.mounts((str(self.home), *(f" /dev/{name} " for name in loops))))
        loops &= self.loops()  # one that was let go may be another host's by now
        words = (str(self.home), *(f" /dev/{name} " for name in loops))
        return Traces(
            frozenset(self.processes()),
            frozenset(line for line in mounts if any(word in line for word in words)),
            frozenset(loops),
            frozenset(self.groups()),
            frozenset(self.folders()),
        )

    def processes(self) -> Iterator[str]:
        """Those that are known to be of the host, and all that are marked as its own."""
        marks = (self.owner.encode(), str(self.home).encode())
        known = {who.pid for who in self.known if who.alive()}
        for pid in numbers():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                around = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                words = around = b""
            if pid in known or any(mark in words + around for mark in marks):
                yield f"{pid}: {words.decode(errors='replace')}"

    def mounts(self, words: tuple[str, ...]) -> Iterator[str]:
        """In every mount namespace that a process is in."""
        for pid in numbers():
            try:
                lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            except OSError:
                continue
            yield from (line for line in lines if any(word in line for word in words))

    def loops(self) -> set[str]:
        found = set()
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                if str(self.home) in backing.read_text():
                    found.add(backing.parts[3])
            except OSError:
                continue
        return found

    def groups(self) -> Iterator[str]:
        for folder, names, _ in os.walk("/sys/fs/cgroup"):
            yield from (f"{folder}/{name}" for name in names if self.owner in (name, os.path.basename(folder)))

    def folders(self) -> Iterator[str]:
        """Of temporary files and fifos, and the records of jails."""
        yield from map(str, self.temporary.iterdir())
        for pid in self.hosts:
            yield from map(str, Path("/dev/shm").glob(f"kandev-shell-{pid}-*"))
        yield from map(str, (self.home / "jails").glob("*"))


def numbers() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())


@pytest.fixture
def outside() -> Iterator[socket.socket]:
    with socket.create_server((OUTSIDE, 0)) as server:
        server.setblocking(False)
        yield server


async def busy(client: Client, outside: socket.socket, tasks: Any) -> None:
    """Two open shells, one a terminal, that run something; an agent in a turn; a connection through its proxy."""
    port = outside.getsockname()[1]
    board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
    wanted = {"board_id": board, "title": "t", "description": "", "allow": [f"{OUTSIDE}:{port}"]}
    task = (await client.call("task.create", wanted))["task"]["id"]
    agent = {"task_id": task, "agent_type": "demo", "prompt": "sleep 1000"}
    agent_id = (await client.call("agent.launch", agent))["agent"]["id"]
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            told = message.payload.get("agent", {})
            if told.get("id") == agent_id and told.get("status") == "RUNNING":
                break
    shell = (await client.call("shell.open", {"task_id": task}, DEADLINE_S))["shell"]
    assert shell["network"] == "allowlist"
    terminal = (await client.call("shell.open", {"task_id": task, "pty": True}, DEADLINE_S))["shell"]
    mark = f"77{os.getpid()}"
    await client.call("shell.input", {"shell_id": terminal["id"], "data": f"setsid sleep {mark}\r"})

    async def runs() -> None:
        command = f"setsid sleep {mark} & curl -sN http://{OUTSIDE}:{port}/"
        with pytest.raises(ClientError):
            await client.call("shell.run", {"shell_id": shell["id"], "command": command}, DEADLINE_S * 10)

    tasks.start_soon(runs)
    with anyio.fail_after(DEADLINE_S):
        await anyio.wait_readable(outside)
        while sum(f"sleep\0{mark}".encode() in words() for words in map(cmdline, numbers())) < 2:
            await anyio.sleep(0.05)


def cmdline(pid: int) -> Any:
    def words() -> bytes:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return b""

    return words


async def settled(machine: Machine, kinds: set[str]) -> Traces:
    """The traces, once there are none but of these kinds, or the time is over."""
    with anyio.move_on_after(GONE_S):
        while machine.now().kinds() - kinds:
            await anyio.sleep(0.05)
    return machine.now()


@pytest.mark.timeout(300)
async def test_p4_a_killed_host_leaves_nothing_on_the_machine_and_neither_does_the_next_one(
    make_host: Any, outside: socket.socket, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    host = make_host(TMPDIR=str(temporary))
    assert host.stop() == 0
    machine = Machine(host.home, temporary)
    assert (await settled(machine, set())) == Traces()
    host.start()
    async with Client.connect(host.url, host.token) as client, anyio.create_task_group() as tasks:
        await busy(client, outside, tasks)
        machine.remember(host.process.pid)
        during = machine.now()
        host.kill()
    assert {"processes", "folders", *(("loops", "mounts") if VOLUMES else ())} <= during.kinds()
    assert during.groups or not cgroups.here().full
    # Files are the next start's to remove.
    left = await settled(machine, {"folders"})
    assert left == Traces(folders=left.folders)
    host.start()
    assert host.recovered["shells_closed"] == 2
    machine.remember(host.process.pid)
    assert host.stop() == 0
    assert (await settled(machine, set())) == Traces()
