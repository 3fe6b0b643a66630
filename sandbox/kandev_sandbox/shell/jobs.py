"""What runs in a shell's jail, as the host sees it: listing it, signalling it, and ending one command's part of it.

Everything below the jail's first process is of the jail. What was a child of that process before a command began
belongs, with its descendants, to earlier commands; everything else is the command's, also what has daemonised.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kandev_sandbox.processes import Identity, children, signal_process, stat_of

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_COMMAND_BYTES = 4096
_ROUND_S = 0.002
_HELPER_TIMEOUT_S = 10.0
MAX_JOBS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A process that a shell's commands started and that still runs. `pid` is its pid inside.

    "running" are those of the command that runs now, "background" what earlier ones left.
    """

    pid: int
    command: str
    state: Literal["running", "background"]
    age_s: float
    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Before:
    """The children of the jail's first process when a command began (clock ticks since boot)."""

    pids: frozenset[int]
    ticks: int

    @classmethod
    def now(cls, init: int) -> Before:
        pids = frozenset(children(init))
        return cls(pids, int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS) + 1)

    def holds(self, member: _Member) -> bool:
        """Is it of an earlier command? A pid alone could have been freed and taken again by the later one."""
        return member.top.pid in self.pids and member.top.started <= self.ticks


@dataclass(frozen=True, slots=True)
class _Member:
    """`top` is that child of the jail's first process which it descends from, or itself."""

    who: Identity
    top: Identity
    alive: bool
    fields: list[str]


def members(init: Identity) -> list[_Member]:
    """Every process below `init`, parents first; what is there while it is looked at. Blocks (walks /proc).

    None once it has ended: its pid may be another's by then, and what is below that one is of no jail.
    """
    found: list[_Member] = []
    seen = {init.pid}
    waiting: list[tuple[int, Identity | None]] = [(pid, None) for pid in children(init.pid)]
    for pid, top in waiting:
        if pid in seen:
            continue
        seen.add(pid)
        fields = stat_of(pid)
        if fields is None:
            continue
        who = Identity(pid, int(fields[19]))
        # The leader of a process whose other threads still run looks like a zombie.
        alive = fields[0] not in "ZX" or int(fields[17]) > 1
        found.append(_Member(who, top or who, alive, fields))
        waiting.extend((child, top or who) for child in children(pid))
    return found if init.alive() else []


def end_command(init: Identity, before: Before, timeout_s: float) -> bool:
    """SIGKILL to all that the command started, until nothing of it is left; False if it outran that. Blocks."""
    deadline = time.monotonic() + timeout_s
    dead: set[Identity] = set()
    while time.monotonic() < deadline:
        theirs = [member for member in members(init) if not before.holds(member)]
        running = [member for member in theirs if member.alive]
        for member in running:
            _kill(member.who)
        # A process that only forks and ends is always one step ahead of a list, but leaves a new zombie in it.
        now_dead = {member.who for member in theirs if not member.alive}
        if not running and now_dead <= dead:
            return True
        dead = now_dead
        time.sleep(_ROUND_S)
    return False


def end_all(init: Identity) -> bool:
    """SIGKILL to everything below `init` in one step of the kernel, which no fork escapes. Blocks.

    A helper process enters the pid namespace for it. False if it could not.
    """
    script = Path(__file__).with_name("kill_helper.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(script), str(init.pid), str(init.started)],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_HELPER_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def listed(init: Identity, running: Callable[[], Before | None]) -> list[Job]:
    """At most 1000 jobs; `running` answers for the command that runs, if any, and is asked after looking. Blocks."""
    level = _level(init.pid)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    jobs = []
    found = members(init)
    before = running()
    for member in found:
        inside = _inside(member.who.pid, level) if member.alive else None
        if inside is None:
            continue
        jobs.append(
            Job(
                pid=inside,
                command=_command(member.who.pid),
                state="background" if before is None or before.holds(member) else "running",
                age_s=max(0.0, now - member.who.started / _TICKS),
                cpu_s=(int(member.fields[11]) + int(member.fields[12])) / _TICKS,
                rss_bytes=int(member.fields[21]) * _PAGE_BYTES,
            )
        )
        if len(jobs) == MAX_JOBS:
            break
    return jobs


def signal_job(init: Identity, before: Before | None, number: signal.Signals, pid: int | None) -> bool:
    """To the process with this pid inside and its descendants, or (None) to all of the running command. Blocks."""
    found = members(init)
    if pid is None:
        chosen = [member for member in found if before is not None and not before.holds(member)]
    else:
        level = _level(init.pid)
        root = next((member for member in found if _inside(member.who.pid, level) == pid), None)
        chosen = [] if root is None else [root, *_below(root.who.pid, found)]
    # Parents first: a parent that handles the signal would take the death of its child for a failure.
    sent = [signal_process(member.who, number) for member in chosen if member.alive]
    return any(sent)


def _below(pid: int, found: list[_Member]) -> list[_Member]:
    parents = {pid}
    below = []
    for member in found:  # parents come first
        if int(member.fields[1]) in parents:
            parents.add(member.who.pid)
            below.append(member)
    return below


def _kill(who: Identity) -> None:
    """Also where only the leading thread has ended, which `signal_process` takes for dead."""
    try:
        descriptor = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return
    try:
        fields = stat_of(who.pid)
        if fields is not None and int(fields[19]) == who.started:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _level(init: int) -> int:
    """How deep the jail's pid namespace lies."""
    return len(_pids(init)) - 1


def _inside(pid: int, level: int) -> int | None:
    pids = _pids(pid)
    return pids[level] if len(pids) > level >= 0 else None


def _pids(pid: int) -> list[int]:
    """Its pid in each pid namespace, outermost first."""
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    line = next((line for line in text.splitlines() if line.startswith(b"NSpid:")), b"NSpid:")
    return [int(number) for number in line.split()[1:]]


def _command(pid: int) -> str:
    """Its arguments, as it shows them; the program's name in brackets if it shows none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read(_COMMAND_BYTES)
        if not arguments:
            arguments = b"[" + Path(f"/proc/{pid}/comm").read_bytes().strip() + b"]"
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return arguments.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
