"""One host per data folder, and how the command line finds it: `host.lock` (flock) and `host.json` in that folder."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from kandev_host.errors import StartupError
from kandev_host.models import now
from kandev_host.version import __version__

LOCK = "host.lock"
STATE = "host.json"
LOOKS, LOOK_S = 5, 0.02
ENDS_S = 5.0
_STATE, _START_TIME = 0, 19  # of what /proc/PID/stat has after the name: fields 3 and 22


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
            _lock(descriptor)
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


class Holder(msgspec.Struct, frozen=True):
    """A host by a descriptor of its process, so that no other one can ever be meant."""

    pid: int
    descriptor: int

    def send(self, number: signal.Signals) -> bool:
        """False when it has ended."""
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except ProcessLookupError:
            return False
        return True

    def ended(self, timeout_s: float) -> bool:
        """Wait so long for its end."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))


@contextmanager
def holder(data_dir: Path) -> Iterator[Holder | None]:
    """The process that holds the data folder, also one that is only starting; None if there is none.

    Raises `StartupError` when somebody holds it and cannot be told to be a host of this folder.
    """
    path = data_dir / LOCK
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise StartupError(f"{path} cannot be looked at: {error.strerror}") from error
    descriptor = -1
    try:
        if _free(lock):
            yield None
            return
        text = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        if not text.isdecimal():
            raise StartupError(f"a host that does not say its process holds {data_dir}; look for it with: fuser {path}")
        pid = int(text)
        try:
            # First the descriptor, then the look: from now on the number can be no other process's.
            descriptor = os.pidfd_open(pid)
        except OSError as error:
            raise StartupError(
                f"the host of {data_dir} (pid {pid}) cannot be seen from here ({error.strerror}): is it in a container?"
            ) from error
        if not _has_open(pid, os.fstat(lock)):
            # Of one that was killed the first thread may be over, and the lock another's that is about to be.
            if _started(pid) is None and Holder(pid, descriptor).ended(ENDS_S) and _free(lock):
                yield None
                return
            raise StartupError(f"pid {pid} is not the host that holds {data_dir}; look for it with: fuser {path}")
        yield Holder(pid, descriptor)
    finally:
        os.close(lock)
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """For a moment somebody may only be looking (`holder`). Raises `BlockingIOError`."""
    for _ in range(LOOKS):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOOK_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    """Has this process the lock open? Only the host has, whatever stands in the file."""
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{entry}")
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
    except OSError:
        return False
    return False


def _started(pid: int) -> int | None:
    """None if it is gone, or dead and only waits for its parent: in a container without an init, for ever."""
    try:
        # The command's name, in parentheses, may hold blanks and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[_STATE] in {b"Z", b"X", b"x"} else int(fields[_START_TIME])
    except (OSError, ValueError, IndexError):
        return None
