"""Where groups are made, in both versions of cgroups, and that none stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_sandbox import Limits, Owner, cgroups, groups, hierarchies, sweep
from kandev_sandbox.groups import Group, Part
from kandev_sandbox.hierarchies import Hierarchy
from kandev_sandbox.processes import Identity, identify

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
UID = 64_245
DEADLINE_S = 400  # for the three files that run again as a user
LIMITS = Limits(memory_bytes=64 * MIB, tree_processes=20, cpus=0.5)
held = pytest.mark.skipif(
    not cgroups.here().full, reason="needs cgroups that this user may make groups in (delegation)"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to delegate a cgroup to a user")
FILES = {
    "cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.type": "domain\n", "cgroup.max.descendants": "max\n",
    "cgroup.controllers": "cpu memory pids\n", "memory.max": "max\n", "memory.swap.max": "max\n", "pids.max": "max\n",
    "cpu.max": "max 100000\n", "memory.events": "oom 0\noom_kill 0\n", "pids.events": "max 0\n",
    "cpu.stat": "usage_usec 1500000\n", "memory.current": "9000\n", "memory.stat": "file 3000\nshmem 1000\n",
}  # fmt: skip


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree like cgroup version 2: every folder made in it has the kernel's files, and goes with them."""
    root = tmp_path / "cgroup"
    mkdir, rmdir = Path.mkdir, Path.rmdir

    def make(path: Path, *arguments: Any, **options: Any) -> None:
        new = not path.exists()
        mkdir(path, *arguments, **options)
        if new and path.is_relative_to(root):
            for name, text in FILES.items():
                (path / name).write_text(text)

    def remove(path: Path) -> None:
        if path.is_relative_to(root) and not [inner for inner in path.iterdir() if inner.is_dir()]:
            for file in path.iterdir():
                file.unlink()
        rmdir(path)

    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(Path, "rmdir", remove)
    monkeypatch.setattr(cgroups, "_SYSTEMD", tmp_path / "no-systemd")
    root.mkdir()
    (root / "user.scope").mkdir()
    return root


def hierarchy(own: Path, root: Path) -> Hierarchy:
    return Hierarchy(2, frozenset(hierarchies.CONTROLLERS), own, root)


def test_version_2_bears_all_limits_above_the_processes(second: Path) -> None:
    found = cgroups.find([hierarchy(second / "user.scope", second)])
    assert (found.full, found.reason) == (True, None)
    group = found.make(Owner.here("v2"), "abc", LIMITS)
    [folder] = group.folders
    assert folder.parent == second / "user.scope" / "kandev" / "v2"
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.max.descendants")
    assert [(folder / name).read_text() for name in names] == [str(64 * MIB), "0", "20", "50000 100000", "64"]
    group.join(os.getpid())
    assert (folder / "in" / "cgroup.procs").read_text() == str(os.getpid())
    assert group.processes() == [os.getpid()]
    assert (folder.parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_version_2_tells_use_and_hits(second: Path) -> None:
    found = cgroups.find([hierarchy(second / "user.scope", second)])
    group = found.make(Owner.here("v2"), "abc", LIMITS)
    (group.folders[0] / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 7\n")
    (group.folders[0] / "pids.events").write_text("max 4\n")
    assert group.used() == groups.Used(1.5, 7000, 0)
    assert group.hits() == groups.Hits(2, 4)


def test_version_2_has_the_host_move_down_where_it_is_alone(second: Path) -> None:
    (second / "user.scope" / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert cgroups.find([hierarchy(second / "user.scope", second)]).full
    assert (second / "user.scope" / "kandev-host" / "cgroup.procs").read_text() == str(os.getpid())


def test_version_2_leaves_others_where_they_are(second: Path) -> None:
    (second / "user.scope" / "cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}\n")
    found = cgroups.find([hierarchy(second / "user.scope", second)])
    assert found.controllers == frozenset()
    assert "share the cgroup" in str(found.reason)
    assert "-p Delegate=yes" in str(found.fix)
    assert not (second / "user.scope" / "kandev-host").exists()


def test_version_2_uses_the_group_above_its_own_leaf(second: Path) -> None:
    (second / "user.scope" / "kandev-host").mkdir()
    found = cgroups.find([hierarchy(second / "user.scope" / "kandev-host", second)])
    assert [base.folder for base in found.bases] == [second / "user.scope" / "kandev"]


@as_root
def test_root_takes_nothing_that_systemd_has_not_delegated(
    second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_SYSTEMD", tmp_path)
    found = cgroups.find([hierarchy(second / "user.scope", second)])
    assert "has not delegated" in str(found.reason)


def test_a_missing_controller_is_named(second: Path) -> None:
    (second / "user.scope" / "cgroup.controllers").write_text("pids\n")
    found = cgroups.find([hierarchy(second / "user.scope", second)])
    assert found.controllers == {"pids"}
    assert found.reason == "The cgroup controllers cpu, memory are not there."


def test_nothing_stays_of_version_2(second: Path) -> None:
    found = cgroups.find([hierarchy(second / "user.scope", second)])
    assert found.remove(found.make(Owner.here("v2"), "abc", LIMITS))
    assert [path.name for path in (second / "user.scope").iterdir() if path.is_dir()] == ["kandev-host"]


def test_the_folder_above_may_go_while_it_is_made(second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process deletes it, which found it empty."""
    found = cgroups.find([hierarchy(second / "user.scope", second)])
    mkdir, vanished = Path.mkdir, []

    def vanishing(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "kandev" and not vanished:
            vanished.append(path)
            raise FileExistsError(path)
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", vanishing)
    group = found.make(Owner.here("v2"), "abc", LIMITS)
    assert vanished
    assert group.folders[0].is_dir()


def test_a_limit_that_cannot_be_set_leaves_no_group(second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cgroups.find([hierarchy(second / "user.scope", second)])
    monkeypatch.delitem(FILES, "pids.max")
    with pytest.raises(OSError, match=r"pids\.max"):
        found.make(Owner.here("v2"), "abc", LIMITS)
    assert not (second / "user.scope" / "kandev").exists()


@pytest.mark.parametrize(
    ("root", "path", "own"),
    [("/", "/a/b", "a/b"), ("/a", "/a/b", "b"), ("/a", "/other", None), ("/", "/../x", None), ("/", "/gone", None)],
)
def test_the_own_group_is_found_below_the_mount(tmp_path: Path, root: str, path: str, own: str | None) -> None:
    for folder in ("proc", "fs/a/b", "fs/b", "fs/sp ace"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc" / "cgroup").write_text(f"4:memory:{path}\n9:name=systemd:/\n")
    mount = f"35 31 0:32 {root} {tmp_path}/fs rw,relatime - cgroup cgroup rw,memory\n"
    (tmp_path / "proc" / "mountinfo").write_text(mount)
    found = [seen.own for seen in hierarchies.read(tmp_path / "proc")]
    assert found == ([tmp_path / "fs" / own] if own else [])


def test_a_kernel_without_cgroups_has_none(tmp_path: Path) -> None:
    assert hierarchies.read(tmp_path) == []
    found = cgroups.find([])
    assert (found.full, found.reason) == (False, "The cgroup controllers cpu, memory, pids are not there.")


@held
def test_a_host_that_was_killed_leaves_no_group(
    sandbox: Any, host: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    policy = sandbox.policy
    arguments = (str(sandbox.bwrap.path), str(policy.workspace), str(policy.uid or 0), str(tmp_path))
    process = host(HOST, *arguments)
    assert process.stdout is not None
    folders = [Path(path) for path in process.stdout.readline().split()]
    assert folders
    assert all(folder.is_dir() for folder in folders)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with anyio.from_thread.start_blocking_portal() as portal:
        portal.call(_gone, folders)
    assert not any(folder.exists() or folder.parent.exists() for folder in folders)
    sweep("dying", tmp_path)
    assert list(tmp_path.glob("*.json")) == []


async def _gone(folders: list[Path]) -> None:
    """By the guardian, which needs some passes; here is nothing to wait on but the folders themselves."""
    with anyio.move_on_after(60):
        while any(folder.parent.exists() for folder in folders):
            await anyio.sleep(0.02)


HOST = """
import anyio, sys
from pathlib import Path
from kandev_sandbox import Limits, Owner, Policy, inspect, open_jail
bwrap, workspace, uid, records = sys.argv[1:]
async def main():
    limits = Limits(memory_bytes=64 << 20, tree_processes=20)
    policy = Policy(workspace=Path(workspace), uid=int(uid) or None, limits=limits)
    async with open_jail(policy, ["/bin/sh", "-c", "sleep 600 & setsid sleep 600 & echo up; sleep 600"],
                         bwrap=inspect(Path(bwrap)), owner=Owner.here("dying"), folder=Path(records)) as jail:
        await jail.stdout.receive()
        print(*jail.groups.folders, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def dead() -> Identity:
    process = subprocess.Popen(["/bin/true"])
    who = identify(process.pid)
    process.wait()
    assert who is not None
    return who


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], env={})
    yield process
    process.kill()
    process.wait()


@held
def test_a_process_is_found_by_its_group_alone_and_swept(sleeper: subprocess.Popen[bytes]) -> None:
    group = cgroups.here().make(Owner("swept", dead()), "abc", LIMITS)
    group.join(sleeper.pid)
    sweep("swept")
    assert sleeper.wait(timeout=60) == -signal.SIGKILL
    assert not any(folder.exists() or folder.parent.exists() for folder in group.folders)


@held
def test_the_group_of_a_living_host_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    found = cgroups.here()
    group = found.make(Owner.here("living"), "abc", LIMITS)
    group.join(sleeper.pid)
    sweep("living")
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()
    assert all(groups.end(folder) for folder in group.folders)
    found.remove(group)


@held
def test_a_folder_that_is_no_jails_is_left_alone() -> None:
    [*_, base] = cgroups.here().bases
    other = base.folder / "foreign" / "system.slice"
    other.mkdir(parents=True)
    try:
        cgroups.sweep(other.parent)
        assert other.is_dir()
    finally:
        other.rmdir()
        cgroups.sweep(other.parent)


@as_root
def test_version_2_really_kills_at_once(sleeper: subprocess.Popen[bytes]) -> None:
    """Without controllers, which version 1 has here; joining, counting, killing and deleting are real."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    point = next((Path(line.split()[4]) for line in lines if " - cgroup2 " in line), None)
    if point is None:
        pytest.skip("needs a mounted cgroup2 file system")
    folder = point / f"kandev-test-{os.getpid()}"
    part = Part(2, folder, frozenset())
    part.make(Limits())
    try:
        Group((part,)).join(sleeper.pid)
        assert Group((part,)).processes() == [sleeper.pid]
        assert Group((part,)).used().cpu_s is not None
        assert not groups.remove(folder)
        assert groups.end(folder)
        assert sleeper.wait(timeout=60) == -signal.SIGKILL
    finally:
        sleeper.kill()
        groups.end(folder)


@as_root
@pytest.mark.timeout(2 * DEADLINE_S + 100)
def test_a_user_has_full_limits_once_the_fix_was_done(tmp_path: Path, becoming: Callable[..., list[str]]) -> None:
    """The same facts for an ordinary user, without and with what `cgroups.here().fix` says."""
    base = tmp_path / "home"
    base.mkdir(mode=0o700)
    os.chown(base, UID, UID)
    packages = str(Path(anyio.__file__).parents[1])
    path = os.pathsep.join([str(HERE.parents[1] / "sandbox"), packages])
    env = {"PATH": "/usr/bin:/bin", "HOME": str(base), "TMPDIR": str(base), "PYTHONPATH": path}
    env["PYTHONDONTWRITEBYTECODE"] = "1"

    def python(*arguments: str) -> str:
        command = [*becoming(UID, base), sys.executable, *arguments]
        done = subprocess.run(
            command, env=env, cwd=base, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout.strip()

    tell = "from kandev_sandbox import cgroups; c = cgroups.here(); print(c.full, c.fix, sep='|')"
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", f"--rootdir={HERE.parents[1]}"]
    files = [str(HERE / f"test_{name}.py") for name in ("limits", "cgroups", "disk")]
    full, _, fix = python("-c", tell).partition("|")
    assert full == "False"
    assert "skipped" in python(*tests, *files)
    command = fix.partition("as root: ")[2].split()
    assert command[0] == "install"
    given = [Path(folder) for folder in command[4:]]
    try:
        subprocess.run(command, check=True, timeout=60)
        assert python("-c", tell).startswith("True|")
        assert " passed" in python(*tests, *files)
    finally:
        for folder in given:
            with suppress(FileNotFoundError):
                folder.rmdir()


def test_groups_far_down_in_each_other_are_counted_and_deleted(tmp_path: Path) -> None:
    """A nested jail of an ordinary user may make them in version 1, where nothing bounds their depth."""
    top = tmp_path / "0-0.abc"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    assert groups.processes_below(top) == []
    assert groups.end(top)
    assert not top.exists()
