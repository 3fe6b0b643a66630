"""Looking at processes through /proc, and signalling them without hitting a reused pid."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """A process for good: a pid is reused, a pid with its start time (clock ticks since boot) is not."""

    pid: int
    started: int

    def alive(self) -> bool:
        """True while it runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in "ZX"


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None if nobody."""
    fields = _stat(pid)
    return None if fields is None else Identity(pid, int(fields[19]))


def parent_of(pid: int) -> int | None:
    """The pid of its parent; None if there is no such process."""
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def children(pid: int) -> list[int]:
    """Its children, of every thread (needs CONFIG_PROC_CHILDREN, which every distribution sets)."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        lists = [Path(f"/proc/{pid}/task/{thread}/children").read_text() for thread in threads]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for text in lists for child in text.split()]


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


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (proc(5) field 3 is index 0)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(b")") + 2 :].decode().split()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes uses: CPU seconds so far (of the ended ones too), resident bytes, processes."""

    cpu_s: float
    rss_bytes: int
    processes: int


def usage(pid: int) -> Usage:
    """Sum over the process and its descendants that are there now. Blocks (reads /proc)."""
    found = [fields for fields in map(_stat, tree(pid)) if fields is not None]
    ticks = sum(int(field) for fields in found for field in fields[11:15])
    pages = sum(int(fields[21]) for fields in found)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"), len(found))
