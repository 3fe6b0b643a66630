"""The log in files: written with a limit on their size and number, and read over their rotation.

`host.log` is written; `host.log.1` was before it, and so on. A line is in exactly one of them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MODE = 0o600
CHUNK_BYTES = 1 << 18
LOCK_S = 2.0


class LogFile(logging.Handler):
    """Appends to `path` (0600); beyond `limit_bytes` begins a new file and keeps `kept` older ones.

    Several processes may write to one path: each follows a rotation of another before its next line. Raises `OSError`.
    """

    def __init__(self, path: Path, limit_bytes: int, kept: int) -> None:
        super().__init__()
        self._path = path
        self._limit_bytes = limit_bytes
        self._kept = kept
        self._file = _appending(path)
        # A pipe or a terminal has no size.
        self._rotates = stat.S_ISREG(os.fstat(self._file).st_mode)
        if self._rotates:
            os.close(self._lock())  # it is there for readers from now on

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
            if self._rotates:
                self._make_room(len(line))
            while line:
                line = line[os.write(self._file, line) :]
        except Exception:  # logging's own way: told on stderr, and the host goes on
            self.handleError(record)

    def close(self) -> None:
        os.close(self._file)
        super().close()

    def _make_room(self, size: int) -> None:
        if not self._is_current():
            self._reopen()
        if self._is_full(size):
            self._rotate(size)

    def _is_full(self, size: int) -> bool:
        written = os.fstat(self._file).st_size
        return written > 0 and written + size > self._limit_bytes

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _rotate(self, size: int) -> None:
        lock = self._lock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current():
                self._reopen()
            if self._is_full(size):
                for number in range(self._kept, 0, -1):
                    if os.path.exists(older := generation(self._path, number - 1)):
                        os.replace(older, generation(self._path, number))
                self._reopen()
                for number, path in generations(self._path):
                    if number > self._kept:
                        path.unlink()
        except BlockingIOError:
            pass  # another process is at it, or looks: this line may still go into the old file
        finally:
            os.close(lock)

    def _lock(self) -> int:
        return os.open(_lock_of(self._path), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, MODE)

    def _reopen(self) -> None:
        before, self._file = self._file, _appending(self._path)
        os.close(before)


class Tail:
    """Reads lines from the oldest file on, each once. `missed` says that files went before they were read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self.missed = False

    def lines(self) -> Iterator[str]:
        """All whole lines that are there now and were not read before."""
        if self._file is None:
            self._file = self._oldest()
        while self._file is not None:
            yield from self._whole(self._file)
            following = self._following(self._file)
            if following is None:
                return
            yield from self._whole(self._file)  # what was written just before it was rotated
            if self._rest:
                yield _text(self._rest)
                self._rest = b""
            self._file.close()
            self._file = following

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _whole(self, file: BinaryIO) -> Iterator[str]:
        if os.fstat(file.fileno()).st_size < file.tell():  # somebody emptied it
            file.seek(0)
            self._rest = b""
        while chunk := file.read(CHUNK_BYTES):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from map(_text, whole)

    def _following(self, file: BinaryIO) -> BinaryIO | None:
        """The file that was begun after this one; None while this is the one that is written."""
        own = os.fstat(file.fileno())
        if self._is_at(0, own):  # as nearly always: no writer is to be kept from rotating for that
            return None
        with self._unmoved():
            place = next((number for number in range(self._highest() + 1) if self._is_at(number, own)), None)
            if place is None:
                self.missed = True
                return self._oldest()
            return next(filter(None, (self._opened(number) for number in range(place - 1, -1, -1))), None)

    @contextmanager
    def _unmoved(self) -> Iterator[None]:
        """No file is rotated meanwhile; but for a writer that stopped in the middle of that, which nobody waits for."""
        try:
            lock = os.open(_lock_of(self._path), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody cleaned up, or nothing was ever written
            yield
            return
        try:
            deadline = time.monotonic() + LOCK_S
            while not _shared(lock) and time.monotonic() < deadline:
                time.sleep(0.001)
            yield
        finally:
            os.close(lock)

    def _is_at(self, number: int, own: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.stat(generation(self._path, number)), own)
        except FileNotFoundError:
            return False

    def _highest(self) -> int:
        return max((number for number, _ in generations(self._path)), default=0)

    def _oldest(self) -> BinaryIO | None:
        return next(filter(None, (self._opened(number) for number in range(self._highest(), -1, -1))), None)

    def _opened(self, number: int) -> BinaryIO | None:
        try:
            return open(generation(self._path, number), "rb")
        except FileNotFoundError:
            return None


def generation(path: Path, number: int) -> Path:
    """The file that was written `number` rotations ago."""
    return path.with_name(f"{path.name}.{number}") if number else path


def generations(path: Path) -> list[tuple[int, Path]]:
    """All files but the one that is written, with their numbers."""
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]{0,5})")
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    return [(int(match[1]), path.with_name(name)) for name in names if (match := pattern.fullmatch(name))]


def _lock_of(path: Path) -> str:
    return f"{path}.lock"


def _shared(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _appending(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
