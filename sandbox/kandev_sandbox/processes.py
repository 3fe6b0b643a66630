"""Looking at processes through /proc, and signalling them without hitting a reused pid."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_CHUNK_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for good: a pid is reused, a pid with its start time (clock ticks since boot) is not."""

    pid: int
    started: int

    def alive(self) -> bool:
        """True while it runs; a zombie does not."""
        fields = stat_of(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in "ZX"


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None if nobody."""
    fields = stat_of(pid)
    return None if fields is None else Identity(pid, int(fields[19]))


def parent_of(pid: int) -> int | None:
    """The pid of its parent; None if there is no such process."""
    fields = stat_of(pid)
    return None if fields is None else int(fields[1])


def children(pid: int) -> list[int]:
    """Its children, of every thread (needs CONFIG_PROC_CHILDREN, which every distribution sets)."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []
    lists = (_content(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for text in lists if text for child in text.split()]


def pid_inside(pid: int) -> int | None:
    """Its pid in its own, innermost pid namespace."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), None)


def tree(pid: int) -> list[int]:
    """The process and all its descendants that are there now."""
    found = {pid: None}  # in the order of their discovery
    rest = [pid]
    while rest:
        for child in children(rest.pop()):
            if child not in found:
                found[child] = None
                rest.append(child)
    return list(found)


def signal_process(who: Identity, number: signal.Signals) -> bool:
    """Send it a signal through a pidfd; False if it has ended. Raises `PermissionError` for another user's."""
    try:
        descriptor = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor pins whoever has the pid now: check after opening that it is still the one meant.
        if not who.alive():
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def stat_of(pid: int | str) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (proc(5) field 3 is index 0); None if there is no such process."""
    text = _content(f"/proc/{pid}/stat")
    return None if text is None else text[text.rindex(b")") + 2 :].decode().split()


def _content(path: str) -> bytes | None:
    """Of a file in /proc, in half the time that a file object takes; None if its process is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return b"".join(iter(partial(os.read, descriptor, _CHUNK_BYTES), b""))
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes uses: CPU seconds so far (of the ended ones too), resident bytes, processes."""

    cpu_s: float
    rss_bytes: int
    processes: int


def usage(pid: int) -> Usage:
    """Sum over the process and its descendants that are there now. Blocks (reads /proc)."""
    found = [fields for fields in map(stat_of, tree(pid)) if fields is not None]
    ticks = sum(int(field) for fields in found for field in fields[11:15])
    pages = sum(int(fields[21]) for fields in found)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"), len(found))
