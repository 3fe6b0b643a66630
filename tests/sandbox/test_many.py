"""Many jails: at once, one after the other, and at the death of their host. Nothing of them stays."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_sandbox import Jail, Limits, Owner, Streams, jails, leftovers, sweep
from kandev_sandbox.doctor import candidates
from kandev_sandbox.processes import children

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]  # it is much work

AT_ONCE = 500
CYCLES = 1000 if os.geteuid() == 0 else 200  # a user's tests run beside root's
SIDE_BY_SIDE = 8
OPEN_FILES = 8192
LIMITS = Limits(memory_bytes=8 << 30, tree_processes=64)


@dataclass(frozen=True)
class Traces:
    """What this process holds, and what jails of its owner and below its folder leave on the machine."""

    children: tuple[int, ...]
    descriptors: tuple[str, ...]
    mounts: tuple[str, ...]
    loops: tuple[str, ...]
    groups: tuple[str, ...]

    @classmethod
    def now(cls, owner: str, folder: Path) -> Traces:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return cls(
            tuple(children(os.getpid())),
            tuple(sorted(os.listdir("/proc/self/fd"))),
            tuple(line for line in mounts if str(folder) in line),
            tuple(_loops(folder)),
            tuple(_groups(owner)),
        )


def _loops(folder: Path) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            text = backing.read_text()
        except OSError:
            continue
        if str(folder) in text:
            yield text


def _groups(owner: str) -> Iterator[str]:
    """Every folder of cgroups that is named after the owner or lies in one that is."""
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"{folder}/{name}" for name in names if owner in (name, os.path.basename(folder)))


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def owner() -> Owner:
    return Owner.here(f"many-{os.getpid()}-{os.urandom(4).hex()}")


def share(sandbox: Any, number: int) -> int:
    """All of them for the bubblewrap that is used here, some for the others."""
    first = next((path for path in map(os.path.realpath, candidates())), "")
    return number if str(sandbox.bwrap.path) == first else number // 5


async def test_500_jails_live_at_once_and_leave_nothing(
    sandbox: Any, owner: Owner, tmp_path: Path, many_files: None
) -> None:
    assert (await sandbox.sh("true", owner=owner, limits=LIMITS)).code == 0
    before = Traces.now(owner.name, tmp_path)
    turns, up, down = anyio.Semaphore(SIDE_BY_SIDE), anyio.Event(), anyio.Event()
    alive: list[Jail] = []
    wanted = share(sandbox, AT_ONCE)

    async def live() -> None:
        async with _entered(turns, sandbox, owner) as jail:
            alive.append(jail)
            if len(alive) == wanted:
                up.set()
            await down.wait()

    async with anyio.create_task_group() as group:
        for _ in range(wanted):
            group.start_soon(live)
        await up.wait()
        assert len(await anyio.to_thread.run_sync(jails, owner.name)) == wanted
        for number, jail in enumerate(alive):
            assert jail.stdin is not None
            assert jail.stdout is not None
            await jail.stdin.send(b"%d" % number)
            assert await jail.stdout.receive() == b"%d" % number
        down.set()
    assert jails(owner.name) == []
    assert Traces.now(owner.name, tmp_path) == before


@asynccontextmanager
async def _entered(turns: anyio.Semaphore, sandbox: Any, owner: Owner) -> AsyncIterator[Jail]:
    """A jail that only echoes; no more than eight are built at a time."""
    await turns.acquire()
    try:
        opened = sandbox.open("cat", owner=owner, streams=Streams(stderr="null"), limits=LIMITS)
        jail = await opened.__aenter__()
    finally:
        turns.release()
    try:
        yield jail
    finally:
        await opened.__aexit__(None, None, None)


async def test_jails_one_after_the_other_leave_nothing(sandbox: Any, owner: Owner, tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()

    async def cycle(times: int) -> None:
        for number in range(times):
            # Every second one ends by itself, the others are ended with a daemon in them.
            script = "exit 7" if number % 2 else "setsid sleep 60 & read line"
            async with sandbox.open("/bin/sh", "-c", script, owner=owner, folder=records, limits=LIMITS) as jail:
                if number % 2:
                    assert await jail.wait() == 7

    await cycle(2)
    before = Traces.now(owner.name, tmp_path)
    async with anyio.create_task_group() as group:
        for _ in range(SIDE_BY_SIDE):
            group.start_soon(cycle, share(sandbox, CYCLES) // SIDE_BY_SIDE)
    assert jails(owner.name, records) == []
    assert list(records.iterdir()) == []
    assert Traces.now(owner.name, tmp_path) == before


HOST = """
import anyio, sys
from contextlib import AsyncExitStack
from pathlib import Path
from kandev_sandbox import Limits, Owner, Policy, inspect, open_jail
bwrap, workspace, uid, word, records, owner = sys.argv[1:]
limits = Limits(memory_bytes=256 << 20, tree_processes=64)
script = f"setsid env -i sleep {word} & trap '' TERM HUP; echo up; read line; sleep {word}; :"
async def main():
    policy = Policy(workspace=Path(workspace), uid=int(uid) or None, limits=limits, network="allowlist",
                    allow=("127.0.0.1:9", "example.org"))
    async with AsyncExitStack() as stack:
        for number in range(10):
            jail = await stack.enter_async_context(open_jail(
                policy, ["/bin/sh", "-c", script], bwrap=inspect(Path(bwrap)), owner=Owner.here(owner),
                folder=Path(records)))
            await jail.stdout.receive()
        print("up", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def test_p4_nothing_of_ten_jails_outlives_a_killed_host_nor_stays_after_its_restart(
    sandbox: Any, watch: Any, host: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    word, owner = f"79{os.getpid()}.{int.from_bytes(os.urandom(3))}", f"killed-{os.urandom(4).hex()}"
    records = tmp_path / "records"
    records.mkdir()
    policy = sandbox.policy
    before = Traces.now(owner, tmp_path)
    process = host(
        HOST, str(sandbox.bwrap.path), str(policy.workspace), str(policy.uid or 0), word, str(records), owner
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    found = jails(owner, records)
    assert len(found) == 10
    pids = [*watch.pids(word), *(who.pid for jail in found for who in jail.processes)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Before the restart: processes and mounts are gone by themselves, and so are the groups in a moment.
    assert watch.ended(pids, 3.0)
    assert leftovers(owner, records) == []
    assert Traces.now(owner, tmp_path).mounts == before.mounts
    assert Traces.now(owner, tmp_path).loops == before.loops
    deadline = time.monotonic() + 60
    while list(_groups(owner)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(_groups(owner)) == []
    # After it: the records, too.
    assert sweep(owner, records) == 0
    assert list(records.iterdir()) == []
    assert Traces.now(owner, tmp_path).groups == ()
