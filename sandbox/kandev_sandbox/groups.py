"""The cgroups of one jail: limits for all of its processes together.

In every hierarchy a jail has two folders, one in the other: the outer one bears the limits, the inner one (`in`) holds
the processes. A jail of an ordinary user that may make namespaces (`nested`) can mount the cgroup file system and write
to the files of its user; but it sees its own group as the top, so what bears its limits must lie above.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from kandev_sandbox.policy import Limits

INSIDE = "in"
PERIOD_US = 100_000
_MIN_QUOTA_US = 1_000
_MAX_DESCENDANTS = 64
_MAX_GROUPS = 1024
_MAX_STEPS = 200_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REMOVE_S = 2.0
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Hits:
    """How often limits were felt: processes that the kernel killed for memory, forks that it refused."""

    memory: int = 0
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """What the group uses now; None where no controller counts it. `cpu_s` is CPU seconds so far."""

    cpu_s: float | None
    memory_bytes: int | None
    processes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A jail's outer folder in one hierarchy, and the limits that it bears."""

    version: Literal[1, 2]
    folder: Path
    controllers: frozenset[str]

    @property
    def inside(self) -> Path:
        return self.folder / INSIDE

    def make(self, limits: Limits) -> None:
        """Raises `OSError`."""
        self.folder.mkdir(mode=0o755)
        self.inside.mkdir(mode=0o755)
        for name, value in _files(self, limits):
            self._set(name, value)

    def _set(self, name: str, value: str) -> None:
        try:
            write(self.folder / name, value)
        except OSError as error:
            # Version 1 refuses a share that is above the one of a group further up, which then holds anyway.
            if not (name == "cpu.cfs_quota_us" and error.errno == errno.EINVAL):
                raise

    def memory(self) -> int | None:
        """Bytes charged to it but for the files that it keeps cached, which the kernel takes back at need."""
        charged, cached, kept = ("memory.current", "file", "shmem")
        if self.version == 1:
            charged, cached, kept = ("memory.usage_in_bytes", "total_cache", "total_shmem")
        total = self.number(charged)
        if total is None:
            return None
        files = (self.number("memory.stat", cached) or 0) - (self.number("memory.stat", kept) or 0)
        return max(0, total - files)

    def number(self, name: str, key: str | None = None, folder: Path | None = None) -> int | None:
        """A number of one of its files, or of the line of `key` in it; None if it is not there."""
        try:
            lines = ((folder or self.folder) / name).read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            words = line.split()
            if key is None or words[0] == key:
                return int(words[-1]) if words[-1].isdigit() else None
        return None


def _files(part: Part, limits: Limits) -> Iterable[tuple[str, str]]:
    """What to write, in order."""
    if part.version == 2:
        # No memory.oom.group: the kernel ends the greatest process and the agent that started it goes on, as with v1.
        yield "cgroup.max.descendants", str(_MAX_DESCENDANTS)
    if "memory" in part.controllers and limits.memory_bytes is not None:
        yield from _memory(part, limits.memory_bytes, limits.swap_bytes)
    if "pids" in part.controllers and limits.tree_processes is not None:
        yield "pids.max", str(limits.tree_processes)
    if "cpu" in part.controllers and limits.cpus is not None:
        quota_us = max(_MIN_QUOTA_US, int(limits.cpus * PERIOD_US))
        if part.version == 2:
            yield "cpu.max", f"{quota_us} {PERIOD_US}"
        else:
            yield "cpu.cfs_period_us", str(PERIOD_US)
            yield "cpu.cfs_quota_us", str(quota_us)


def _memory(part: Part, memory_bytes: int, swap_bytes: int) -> Iterable[tuple[str, str]]:
    if part.version == 2:
        yield "memory.max", str(memory_bytes)
        if (part.folder / "memory.swap.max").exists():  # not on kernels without swap
            yield "memory.swap.max", str(swap_bytes)
        return
    yield "memory.limit_in_bytes", str(memory_bytes)
    if (part.folder / "memory.memsw.limit_in_bytes").exists():
        yield "memory.memsw.limit_in_bytes", str(memory_bytes + swap_bytes)
    elif swap_bytes == 0:
        yield "memory.swappiness", "0"


@dataclass(frozen=True, slots=True)
class Group:
    """All parts of a jail. Every method blocks for microseconds, `join` for up to some milliseconds."""

    parts: tuple[Part, ...]

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(name for part in self.parts for name in part.controllers)

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(part.folder for part in self.parts)

    def join(self, pid: int) -> None:
        """Put a process in that waits to run its command. Raises `OSError` (ESRCH if it has ended)."""
        for part in self.parts:
            write(part.inside / "cgroup.procs", str(pid))

    def hits(self) -> Hits:
        """Version 1 counts in the group of the process, version 2 in the one of the limit (and above)."""
        memory = processes = 0
        for part in self.parts:
            for folder in (part.folder, part.inside):
                for name in ("memory.events", "memory.oom_control"):
                    memory = max(memory, part.number(name, "oom_kill", folder) or 0)
                processes = max(processes, part.number("pids.events", "max", folder) or 0)
        return Hits(memory, processes)

    def used(self) -> Used:
        cpu_s: float | None = None
        memory: int | None = None
        for part in self.parts:
            ticks_us = part.number("cpu.stat", "usage_usec")
            nanoseconds = part.number("cpuacct.usage")
            if ticks_us is not None:
                cpu_s = ticks_us / 1e6
            elif nanoseconds is not None:
                cpu_s = nanoseconds / 1e9
            memory = memory if (counted := part.memory()) is None else counted
        return Used(cpu_s, memory, len(self.processes()))

    def processes(self) -> list[int]:
        """The pids of all that is in it."""
        return processes_below(self.parts[0].folder) if self.parts else []

    def remove(self) -> bool:
        """Delete the folders; nothing may be in them any more. False while the kernel still finds something."""
        removed = [remove(part.folder) for part in self.parts]
        return all(removed)


def processes_below(folder: Path) -> list[int]:
    """The pids in this group and in those below."""
    found: list[int] = []
    for inner in _groups(folder):
        with suppress(OSError):  # gone meanwhile, or a threaded group, which the group above it lists
            found.extend(map(int, (inner / "cgroup.procs").read_text().split()))
    return [pid for pid in found if pid > 0]  # 0 is one that this pid namespace does not see, and kill(0) is us


def write(path: Path, value: str) -> None:
    """Write to a file of the cgroup file system in one piece; never makes one. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _groups(folder: Path) -> Iterator[Path]:
    """The group and those below it, from the outer to the inner ones; not without end, for a jail may have made them.

    `os.walk` would recurse (before Python 3.12), and fail where a jail has put a thousand of them into each other.
    """
    waiting = [os.fspath(folder)]
    for group in waiting:
        yield Path(group)
        try:
            with os.scandir(group) as entries:
                inner = (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
                waiting.extend(islice(inner, max(0, _MAX_GROUPS - len(waiting))))
        except OSError:  # gone meanwhile, or too deep for a path
            continue


def remove(folder: Path) -> bool:
    """Delete a group and those in it, the innermost first; False while something keeps one of them."""
    for inner in reversed(list(_groups(folder))):
        try:
            inner.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return _remove_deep(folder)
    return True


def _remove_deep(folder: Path) -> bool:
    """As `remove`, of groups that lie deeper in each other than a path can say, or are more than one look lists."""
    try:
        here = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    way: list[str] = []
    try:
        for _ in range(_MAX_STEPS):
            inner = _inner(here)
            if inner is None and not way:
                folder.rmdir()
                return True
            here = _stepped(here, ".." if inner is None else inner)
            if inner is None:
                os.rmdir(way.pop(), dir_fd=here)
            else:
                way.append(inner)
    except OSError:
        return False
    finally:
        os.close(here)
    return False


def _inner(group: int) -> str | None:
    """The name of one of the groups in it."""
    with os.scandir(group) as entries:
        return next((entry.name for entry in entries if entry.is_dir(follow_symlinks=False)), None)


def _stepped(group: int, name: str) -> int:
    """The descriptor of another one, in exchange for this."""
    other = os.open(name, _FOLDER, dir_fd=group)
    os.close(group)
    return other


def end(folder: Path) -> bool:
    """SIGKILL to all in a group, again until it is empty, and delete it; False if that takes above two seconds."""
    deadline = time.monotonic() + _REMOVE_S
    while not remove(folder):
        if time.monotonic() > deadline:
            return False
        try:
            write(folder / "cgroup.kill", "1")
        except OSError:  # version 1, or a kernel before 5.14
            for pid in processes_below(folder):
                with suppress(*_GONE, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return True
