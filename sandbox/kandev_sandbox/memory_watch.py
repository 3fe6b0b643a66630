"""The memory of the jails that no cgroup holds: one thread looks at all those of this process, in one pass over /proc.

No jail can hold more than it held at the last look and this machine has handed out since (`pgalloc` in /proc/vmstat).
So most looks are one read of that file, and only a jail that could have used up its room is counted again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kandev_sandbox.processes import Identity, stat_of

# Between two looks at most what this machine could fill at this rate is used.
_FILL_BYTES_PER_S = 2 << 30
_LEAST_S, _MOST_S = 0.05, 2.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
# What the kernel keeps for an empty file of a tmpfs: 900 bytes on Linux 6.18. No option of bwrap bounds their number.
_FILE_BYTES = 1 << 10


class _Seen(NamedTuple):
    """A process in /proc; `rss_bytes` also counts pages of files."""

    parent: int
    started: int
    rss_bytes: int


@dataclass(slots=True, eq=False)
class Watch:
    """One jail, and the paths inside of its tmpfs. Once `used_bytes` is set, it is more than the limit, and the eventfd
    `beyond` can be read.
    """

    init: Identity
    limit_bytes: int
    beyond: int
    scratch: Sequence[str] = ()
    used_bytes: int | None = None
    _room_bytes: int = field(init=False)
    _allocated_bytes: int | None = None
    _looked_s: float = 0.0

    def __post_init__(self) -> None:
        self._room_bytes = self.limit_bytes - int(_LEAST_S * _FILL_BYTES_PER_S)  # it has run that long when it is seen

    def room(self, allocated_bytes: int | None, now_s: float) -> int:
        """How much more it may use for certain, without being looked at; 0 asks for a look."""
        if self._looked_s == 0.0:  # it is new, and nothing ran in it until now
            self._looked_s, self._allocated_bytes = now_s, allocated_bytes
        if allocated_bytes is None or self._allocated_bytes is None or now_s - self._looked_s >= _MOST_S:
            return 0
        return max(0, self._room_bytes - (allocated_bytes - self._allocated_bytes))

    def look(self, seen: _Processes, allocated_bytes: int | None, now_s: float) -> int:
        """What it may still use."""
        self._looked_s, self._allocated_bytes = now_s, allocated_bytes
        members = seen.tree(self.init)
        kept, files = _scratch(self.init.pid, self.scratch) if members else (0, 0)
        used = sum(seen.found[pid].rss_bytes for pid in members) + kept + files
        if used > self.limit_bytes:
            used = _together(map(_own, members), kept) + files
        if used > self.limit_bytes:
            # Counted again, exactly: forked processes share pages, and each of them has counted those.
            used = _together((_shares(pid) or _own(pid) for pid in members), kept) + files
        self._room_bytes = max(0, self.limit_bytes - used)
        if used > self.limit_bytes and self.used_bytes is None:
            self.used_bytes = used
            os.eventfd_write(self.beyond, 1)
        return self._room_bytes


class _Processes:
    """All that run now, read once. Raises `OSError` where that cannot be."""

    def __init__(self) -> None:
        self.found: dict[int, _Seen] = {}
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            fields = stat_of(pid)
            if fields is None:
                continue
            self.found[int(pid)] = _Seen(int(fields[1]), int(fields[19]), int(fields[21]) * _PAGE)
            self._children[int(fields[1])].append(int(pid))

    def tree(self, init: Identity) -> list[int]:
        """The process and its descendants, of every thread; nobody if it is gone."""
        first = self.found.get(init.pid)
        if first is None or first.started != init.started:
            return []
        members = {init.pid: None}  # a pid that was given anew while we read must not lead in a circle
        rest = [init.pid]
        while rest:
            for child in self._children[rest.pop()]:
                if child not in members:
                    members[child] = None
                    rest.append(child)
        return list(members)


@dataclass(slots=True)
class Watcher:
    """Its thread runs while there is something to watch."""

    _watches: set[Watch] = field(default_factory=set)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None

    def add(self, watch: Watch) -> None:
        with self._news:
            self._watches.add(watch)
            if self._thread is None or not self._thread.is_alive():  # it is not, in a child that was forked
                self._thread = threading.Thread(target=self._run, name="kandev-memory", daemon=True)
                self._thread.start()
            self._news.notify()

    def remove(self, watch: Watch) -> None:
        """From here on nothing is written to its eventfd."""
        with self._news:
            self._watches.discard(watch)
            if not self._watches:
                self._news.notify()

    def _run(self) -> None:
        pause_s = rest_s = 0.0
        while True:
            time.sleep(rest_s)  # also when jails come faster than they can be looked at
            with self._news:
                if self._watches:
                    self._news.wait(pause_s)
                if not self._watches:
                    self._thread = None
                    return
                watches = tuple(self._watches)
            began_s = time.monotonic()
            room = self._look(watches, began_s)
            # Never more than half of the time: on a machine full of processes a look takes long.
            rest_s = max(_LEAST_S, time.monotonic() - began_s)
            pause_s = max(0.0, min(_MOST_S, room / _FILL_BYTES_PER_S) - rest_s)

    def _look(self, watches: Iterable[Watch], now_s: float) -> int:
        """The least that one of them may still use."""
        allocated = _allocated()
        rooms = {watch: watch.room(allocated, now_s) for watch in watches}
        due = [watch for watch, room in rooms.items() if room == 0]
        if due:
            try:
                seen = _Processes()
            except OSError:
                return 0  # no descriptor is left for now: soon again
            with self._news:
                rooms |= {watch: watch.look(seen, allocated, now_s) for watch in due if watch in self._watches}
        return min(rooms.values())


def _allocated() -> int | None:
    """Bytes of memory that the kernel has handed out since its start, machine-wide; None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_bytes().splitlines()
    except OSError:
        return None
    counts = [int(line.split()[1]) for line in lines if line.startswith(b"pgalloc_")]
    return sum(counts) * _PAGE if counts else None


def _scratch(pid: int, places: Sequence[str]) -> tuple[int, int]:
    """Bytes that lie in them, and that the kernel keeps for their files.

    No way there leads through a folder that the jail can change.
    """
    kept = files = 0
    for place in places:
        with suppress(OSError):  # the jail has ended
            found = os.statvfs(f"/proc/{pid}/root{place}")
            kept += (found.f_blocks - found.f_bfree) * found.f_frsize
            files += found.f_files - found.f_ffree
    return kept, files * _FILE_BYTES


def _together(used: Iterable[tuple[int, int]], kept: int) -> int:
    """What is mapped of a tmpfs is in both counts."""
    pairs = list(used)
    return sum(own for own, _ in pairs) + max(sum(shared for _, shared in pairs), kept)


def _own(pid: int) -> tuple[int, int]:
    """Bytes of RAM that no disk backs: of its own, and of files in memory."""
    return _pair(Path(f"/proc/{pid}/status"), "RssAnon:", "RssShmem:")


def _shares(pid: int) -> tuple[int, int] | None:
    """The same, with a share of what several processes have; None where it cannot be looked at."""
    found = _pair(Path(f"/proc/{pid}/smaps_rollup"), "Pss_Anon:", "Pss_Shmem:")
    return found if any(found) else None


def _pair(path: Path, *names: str) -> tuple[int, int]:
    """Of the lines so named, which count KiB; 0 for a process that is gone or closed to us."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0, 0
    first, second = (sum(int(line.split()[1]) << 10 for line in lines if line.startswith(name)) for name in names)
    return first, second


WATCHER = Watcher()
