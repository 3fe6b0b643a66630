"""One host per data folder, and how the command line finds it: `host.lock` (flock) and `host.json` in that folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from kandev_host.errors import StartupError
from kandev_host.models import now
from kandev_host.version import __version__

LOCK = "host.lock"
STATE = "host.json"


class HostState(msgspec.Struct, frozen=True, kw_only=True):
    """A running host. `pid_started` (clock ticks since boot) tells it from a later process with the same pid."""

    url: str
    pid: int
    pid_started: int | None = None
    started: datetime = msgspec.field(default_factory=now)
    version: str = __version__


@contextmanager
def only_host(data_dir: Path) -> Iterator[None]:
    """Hold the data folder. Raises `StartupError` naming the process that holds it already."""
    # The lock goes with the process, however it ends; the file stays, as unlinking it would race with the next start.
    descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StartupError(
                f"another host (pid {owner}) uses {data_dir}; stop it, or give this one a folder of its own: --data-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def announced(data_dir: Path, url: str) -> Iterator[HostState]:
    """Say in `host.json` where this host listens, until the block ends."""
    state = HostState(url=url, pid=os.getpid(), pid_started=_started(os.getpid()))
    path = data_dir / STATE
    fresh = data_dir / f"{STATE}.new"
    with open(fresh, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(msgspec.json.encode(state))
    fresh.rename(path)
    try:
        yield state
    finally:
        path.unlink(missing_ok=True)


def running(data_dir: Path) -> HostState | None:
    """The host that runs on this data folder; None if there is none, or it died without a word."""
    try:
        state = msgspec.json.decode((data_dir / STATE).read_bytes(), type=HostState)
    except (OSError, msgspec.DecodeError):
        return None
    alive = state.pid_started is not None and _started(state.pid) == state.pid_started
    return state if alive else None


def died(data_dir: Path) -> bool:
    """Did the last host on this data folder end without a word? The next one says what it left."""
    return (data_dir / STATE).exists() and running(data_dir) is None


def _started(pid: int) -> int | None:
    try:
        # The command's name, in parentheses, may hold blanks and parentheses itself; starttime is field 22.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
