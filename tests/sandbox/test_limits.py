"""The limits of a jail's whole tree: by cgroups where this process may make some, else by a watchdog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_sandbox import Cgroups, Limits, Owner, PolicyError, cgroups, groups

pytestmark = pytest.mark.anyio
MIB = 1 << 20
NOTHING = Cgroups((), "a test wants none", None)
# Children that each hold a part of the memory: no limit of a single process is met.
HOARD = """
import os, signal, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        held = bytearray(int(sys.argv[2]) << 20)
        for place in range(0, len(held), 4096):
            held[place] = 1
        time.sleep(600)
try:
    os.wait()
    print("killed", flush=True)
except KeyboardInterrupt:
    pass
sys.exit(3)
"""
FORKS = """
import os, sys, time
made = 0
try:
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except BlockingIOError:
    print(made, flush=True)
    sys.exit(5)
"""
held = pytest.mark.skipif(
    not cgroups.here().full, reason="needs cgroups that this user may make groups in (delegation)"
)


def hoard(processes: int, each_mib: int) -> tuple[str, ...]:
    return ("/usr/bin/python3", "-c", HOARD, str(processes), str(each_mib))


@pytest.fixture(params=["cgroups", "watched"])
def found(request: pytest.FixtureRequest) -> Cgroups:
    """Both ways; the first falls back to the second where this process may not make groups."""
    return cgroups.here() if request.param == "cgroups" else NOTHING


async def test_a_tree_that_goes_beyond_its_memory_is_stopped_and_told_why(sandbox: Any, found: Cgroups) -> None:
    limits = Limits(memory_bytes=64 * MIB)
    with anyio.fail_after(90):
        async with sandbox.open(*hoard(6, 20), limits=limits, groups=found) as jail:
            assert await jail.wait() != 0
    assert jail.ending is not None
    assert jail.ending.limit == "memory"
    assert "its memory limit of 64.0 MiB" in jail.ending.text


async def test_a_tree_within_its_memory_is_left_alone(sandbox: Any, found: Cgroups) -> None:
    script = "held = bytearray(b'x') * (20 << 20); import time; time.sleep(0.3)"
    done = await sandbox.run("/usr/bin/python3", "-c", script, limits=Limits(memory_bytes=64 * MIB), groups=found)
    assert done.code == 0


async def test_forks_that_share_their_memory_count_it_once(sandbox: Any, found: Cgroups) -> None:
    script = (
        "import os, time\nheld = bytearray(b'x') * (20 << 20)\n"
        "for _ in range(5):\n    if os.fork() == 0: time.sleep(0.4); os._exit(0)\n"
        "for _ in range(5): os.wait()"
    )
    done = await sandbox.run("/usr/bin/python3", "-c", script, limits=Limits(memory_bytes=64 * MIB), groups=found)
    assert (done.code, done.err) == (0, "")


FILES = "i=0; while :; do : > {}/$i || exit 9; i=$((i+1)); done"


@pytest.mark.parametrize("place", ["/dev/shm", "/run", "/tmp", "/home/agent"])
async def test_empty_files_without_end_in_memory_meet_the_memory_limit(
    sandbox: Any, found: Cgroups, place: str
) -> None:
    """The kernel bounds their number by half of the pages of the machine, and keeps a kilobyte for each."""
    limits = Limits(memory_bytes=16 * MIB)
    scratch = {"home": None, "tmp": None, "limits": limits}
    with anyio.fail_after(110):
        async with sandbox.open("/bin/sh", "-c", FILES.format(place), groups=found, **scratch) as jail:
            assert await jail.wait() in (-9, 137)
    assert jail.ending is not None
    assert "its memory limit of 16.0 MiB" in jail.ending.text


async def test_what_lies_in_memory_unmapped_meets_the_memory_limit(sandbox: Any, found: Cgroups) -> None:
    limits = Limits(memory_bytes=32 * MIB)
    with anyio.fail_after(110):
        async with sandbox.open(
            "/bin/sh", "-c", "head -c 50000000 /dev/zero > /dev/shm/a || exit 9; sleep 600", limits=limits, groups=found
        ) as jail:
            await jail.wait()
    assert jail.ending is not None


async def test_children_of_a_thread_are_counted(sandbox: Any) -> None:
    run = f"threading.Thread(target=exec, args=({HOARD!r}, {{}})).start()"
    command = ("/usr/bin/python3", "-c", f"import threading, sys\nsys.argv = ['-', '6', '20']\n{run}")
    with anyio.fail_after(90):
        async with sandbox.open(*command, limits=Limits(memory_bytes=64 * MIB), groups=NOTHING) as jail:
            await jail.wait()
    assert jail.ending is not None


async def test_a_tree_has_no_more_processes_than_its_limit(sandbox: Any, found: Cgroups) -> None:
    done = await sandbox.run("/usr/bin/python3", "-c", FORKS, limits=Limits(tree_processes=20), groups=found)
    assert done.code == 5
    assert int(done.out) < 20


async def test_a_jail_that_was_given_no_limit_cannot_fill_the_machine_with_processes(sandbox: Any) -> None:
    """Also as an ordinary user without cgroups, whose own processes do not count."""
    done = await sandbox.run("/usr/bin/python3", "-c", FORKS, limits=Limits(processes=20), groups=NOTHING)
    assert done.code == 5
    assert int(done.out) < 20


@held
async def test_refused_processes_are_told(sandbox: Any) -> None:
    async with sandbox.open("/usr/bin/python3", "-c", FORKS, limits=Limits(tree_processes=20)) as jail:
        await jail.wait()
    assert jail.ending is not None
    assert (jail.ending.limit, "its limit of 20" in jail.ending.text) == ("processes", True)


async def test_a_jail_ends_after_its_time(sandbox: Any) -> None:
    async with sandbox.open("sleep", "600", limits=Limits(wall_s=0.2)) as jail:
        with anyio.fail_after(90):
            assert await jail.wait() == -9
    assert (jail.ending.limit, jail.ending.text) == ("time", "it was ended after its time limit of 0.2 s")


async def test_a_command_that_ends_well_met_no_limit(sandbox: Any) -> None:
    async with sandbox.open("true", limits=Limits(wall_s=60, memory_bytes=64 * MIB, tree_processes=20)) as jail:
        await jail.wait()
    assert jail.ending is None


async def test_a_failure_of_its_own_is_no_limits(sandbox: Any) -> None:
    async with sandbox.open("false", limits=Limits(wall_s=60, memory_bytes=64 * MIB, tree_processes=20)) as jail:
        await jail.wait()
    assert jail.ending is None


async def test_an_error_around_a_watched_jail_is_that_error(sandbox: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with sandbox.open("sleep", "600", limits=Limits(wall_s=60)):
            _ = 1 / 0


@held
async def test_every_process_is_in_the_group_before_it_runs(sandbox: Any) -> None:
    async with sandbox.open("sh", "-c", "echo up; exec sleep 600", limits=Limits(memory_bytes=64 * MIB)) as jail:
        await jail.stdout.receive()
        [folder] = jail.groups.folders
        assert jail.init.pid in groups.processes_below(folder)
        assert len(groups.processes_below(folder)) == 2


@held
async def test_the_limits_stand_in_the_group_above_the_processes(sandbox: Any) -> None:
    limits = Limits(memory_bytes=64 * MIB, tree_processes=20, cpus=0.5)
    async with sandbox.open("sleep", "600", limits=limits) as jail:
        said = {
            path.name: path.read_text().strip()
            for folder in jail.groups.folders
            for path in folder.iterdir()
            if path.name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max")
        }
        assert all(not (folder / "cgroup.procs").read_text() for folder in jail.groups.folders)
    assert set(said.values()) in ({str(64 * MIB), "20", "50000"}, {str(64 * MIB), "20", "50000 100000"})


@held
async def test_a_jail_that_wants_more_cpus_than_its_limit_is_held_back(sandbox: Any) -> None:
    script = "for n in 1 2 3 4; do (while :; do :; done) & done; wait"
    async with sandbox.open("sh", "-c", script, limits=Limits(cpus=0.2)) as jail:
        with anyio.fail_after(90):
            while not any(map(throttled, jail.groups.folders)):
                await anyio.sleep(0.05)


def throttled(group: Path) -> int:
    """How often the kernel has held it back (cgroup: nr_throttled); 0 for a group of another controller."""
    stat = group / "cpu.stat"
    words = stat.read_text().split() if stat.exists() else []
    return int(words[words.index("nr_throttled") + 1]) if "nr_throttled" in words else 0


@held
async def test_nothing_stays_of_the_groups(sandbox: Any) -> None:
    async with sandbox.open("sleep", "600", limits=Limits(memory_bytes=64 * MIB), owner=Owner.here("groups")) as jail:
        folders = jail.groups.folders
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() or folder.parent.exists() for folder in folders)


@held
async def test_usage_is_the_groups(sandbox: Any) -> None:
    # Where no controller counts processor time, /proc does, in ticks of 10 ms.
    script = """
import time
held = bytearray(b"x") * (20 << 20)
while time.process_time() < 0.1:
    pass
print("up", flush=True)
time.sleep(600)
"""
    async with sandbox.open("/usr/bin/python3", "-c", script, limits=Limits(memory_bytes=64 * MIB)) as jail:
        await jail.stdout.receive()
        used = await jail.usage()
        assert (used.rss_bytes > 20 * MIB, used.processes, used.cpu_s > 0) == (True, 2, True)
    assert (await jail.usage()).processes == 0


@held
async def test_a_nested_jail_cannot_lift_its_own_limits(sandbox: Any) -> None:
    """It may mount cgroup file systems in namespaces of its own, and an ordinary user's may write that user's files."""
    lift = """
    mount -t cgroup2 none /run && for file in $(find /run -name memory.max -o -name pids.max); do echo max > $file; done
    umount /run
    for kind in memory pids; do
      mount -t cgroup -o $kind none /run || continue
      for file in $(find /run -name memory.limit_in_bytes); do echo -1 > $file; done
      for file in $(find /run -name pids.max); do echo max > $file; done
      umount /run
    done
    echo tried; exec sleep 600
    """
    limits = Limits(memory_bytes=64 * MIB, tree_processes=50)
    command = ("unshare", "-UrmC", "sh", "-c", f"({lift}) 2>/dev/null")
    async with sandbox.open(*command, limits=limits, nested=True) as jail:
        with anyio.fail_after(90):
            assert await jail.stdout.receive() == b"tried\n"
        values = {
            (folder / name).read_text().strip()
            for folder in jail.groups.folders
            for name in ("memory.limit_in_bytes", "memory.max", "pids.max")
            if (folder / name).exists()
        }
    assert values == {str(64 * MIB), "50"}


@pytest.mark.parametrize(
    "field",
    [
        {"memory_bytes": 1},
        {"tree_processes": 1},
        {"cpus": 0.0},
        {"wall_s": -1},
        {"swap_bytes": -1},
        {"cpus": float("nan")},
    ],
)
def test_a_limit_that_cannot_hold_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match=next(iter(field))):
        Limits(**field)
