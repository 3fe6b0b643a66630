"""Reading a workspace from outside of the jail: names, sizes and contents, while a hostile program changes them.

Every path goes through `beneath`. What is no regular file is never opened, so that a FIFO does not wait and a device is
not touched; a lease delays nobody. Every answer has a bound, and so has the time that a listing takes. All calls block.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import Literal

from kandev_sandbox.beneath import open_beneath, parts_of, reopen
from kandev_sandbox.errors import SandboxError

Kind = Literal["file", "directory", "symlink", "other"]
DEPTH_MAX = 64
LIST_S = 10.0
_LOOKED_AT = 1024  # names between two looks at the clock
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


class FileMissing(SandboxError):
    """There is nothing of this name (any more)."""


class FileRefused(SandboxError):
    """The path leads through a link or out of the workspace, or names what is not read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`path` is below the workspace; names that are not UTF-8 are as `os.fsdecode` makes them.

    `size` is of regular files, `target` of symbolic links (never followed).
    """

    path: str
    kind: Kind
    mode: int
    modified_s: float
    size: int | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What stands in a regular file from `offset` on; `size` is the whole file's when it was opened."""

    content: bytes
    offset: int
    size: int


def read_part(folder: int, path: str, offset: int, limit: int) -> Part:
    """At most `limit` bytes of a regular file below the folder. Raises `FileMissing`, `FileRefused`."""
    if offset < 0 or limit < 0:
        raise ValueError("offset and limit are no less than 0")
    handle = _opened(folder, path, os.O_PATH)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise FileRefused(f"It is no regular file but a {_kind(found.st_mode)}.")
        descriptor = reopen(handle, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise FileRefused(f"It cannot be opened: {error.strerror}.") from error
    finally:
        os.close(handle)
    try:
        content = b"" if offset >= found.st_size else _read(descriptor, offset, limit)
    except OSError as error:
        raise FileRefused(f"It cannot be read: {error.strerror}.") from error
    finally:
        os.close(descriptor)
    return Part(content, offset, found.st_size)


def _read(descriptor: int, offset: int, limit: int) -> bytes:
    chunks: list[bytes] = []
    while limit > 0 and (chunk := os.pread(descriptor, min(limit, 1 << 20), offset)):
        chunks.append(chunk)
        offset += len(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def list_tree(
    folder: int, path: str, depth: int, limit: int, *, after: str = "", timeout_s: float = LIST_S
) -> list[Entry]:
    """What is below `path`: a folder before what is in it, names in order, at most `limit` of those behind `after`.

    Raises `FileMissing`, `FileRefused`, and `TimeoutError` for folders so large that it takes too long.
    """
    if not 1 <= depth <= DEPTH_MAX or limit < 1:
        raise ValueError(f"depth is from 1 to {DEPTH_MAX}, limit at least 1")
    walk = _Walk(limit, tuple(after.split("/")) if after else (), time.monotonic() + timeout_s)
    top = _opened(folder, path, _FOLDER)
    try:
        walk.into(top, _parts(path), depth)
    finally:
        os.close(top)
    return walk.entries


class _Walk:
    """One listing on its way; it holds a descriptor for each level it is in."""

    def __init__(self, limit: int, after: tuple[str, ...], deadline: float) -> None:
        self.entries: list[Entry] = []
        self._limit = limit
        self._after = after
        self._deadline = deadline

    def into(self, folder: int, at: tuple[str, ...], depth: int) -> None:
        level = len(at)
        least = self._after[level] if len(self._after) > level and self._after[:level] == at else ""
        room = self._limit - len(self.entries) + 1
        for name in nsmallest(room, (name for name in self._names(folder) if name >= least)):
            here = (*at, name)
            entry = _entry(folder, name, here)
            if entry is None:
                continue
            if here != self._after[: level + 1]:  # else an earlier listing had it
                self.entries.append(entry)
            if entry.kind == "directory" and depth > 1 and len(self.entries) < self._limit:
                self._down(folder, name, here, depth)
            if len(self.entries) >= self._limit:
                return

    def _down(self, folder: int, name: str, here: tuple[str, ...], depth: int) -> None:
        try:
            inner = open_beneath(folder, (name,), _FOLDER)
        except OSError:  # gone, or something else by now, or closed to this user
            return
        try:
            self.into(inner, here, depth - 1)
        finally:
            os.close(inner)

    def _names(self, folder: int) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number % _LOOKED_AT == 0 and time.monotonic() > self._deadline:
                    raise TimeoutError("The folder is too large to be listed in time")
                yield entry.name


def _entry(folder: int, name: str, here: tuple[str, ...]) -> Entry | None:
    """None if it is gone."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(found.st_mode) else None
    except OSError:
        return None
    kind = _kind(found.st_mode)
    size = found.st_size if kind == "file" else None
    return Entry("/".join(here), kind, stat.S_IMODE(found.st_mode), found.st_mtime, size, target)


def _kind(mode: int) -> Kind:
    return _KINDS.get(stat.S_IFMT(mode), "other")


def _parts(path: str) -> tuple[str, ...]:
    try:
        return parts_of(path)
    except ValueError as error:
        raise FileRefused(f"This is no path below the workspace: {error}.") from error


def _opened(folder: int, path: str, flags: int) -> int:
    try:
        return open_beneath(folder, _parts(path), flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileRefused("The path leads through a symbolic link, which is never followed.") from error
        if error.errno == errno.ENOTDIR and flags & os.O_DIRECTORY:
            raise _no_folder(folder, path, error) from error
        if error.errno in _GONE:
            raise FileMissing("There is no such file.") from error
        raise FileRefused(f"It cannot be opened: {error.strerror}.") from error


def _no_folder(folder: int, path: str, error: OSError) -> SandboxError:
    """What to say of a path to a folder that is something else, or that has something else on its way."""
    try:
        handle = open_beneath(folder, _parts(path), os.O_PATH)
    except OSError:
        return FileMissing("There is no such file.")
    os.close(handle)
    return FileRefused("It is no folder.")
