"""Measuring what a folder takes of the disk, while hostile processes write to it, move it and hide in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 512
_HELD_DESCRIPTORS = 64
_NAMES_PER_INODE = 4
_Key = tuple[int, int]


@dataclass(slots=True)
class Space:
    """Bytes as allocated on the disk, inodes, and the names that they have.

    `complete` is False if folders were moved away while counted, or if counting was `cut` short: there were more than
    `most_inodes`, or four times as many names.
    """

    bytes: int = 0
    inodes: int = 0
    complete: bool = True
    most_inodes: int | None = None
    names: int = 0
    cut: bool = False
    _linked: set[_Key] = field(default_factory=set, repr=False)

    def add(self, found: os.stat_result) -> None:
        """Count an inode, the first time that one of its names is met."""
        # One inode may have names without end.
        self.names += 1
        self._bound(self.names > _NAMES_PER_INODE * (self.most_inodes or 0))
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            key = (found.st_dev, found.st_ino)
            if key in self._linked:
                return
            self._linked.add(key)
        self.bytes += found.st_blocks * _BLOCK_BYTES
        self.inodes += 1
        self._bound(self.inodes > (self.most_inodes or 0))

    def _bound(self, is_beyond: bool) -> None:
        if self.most_inodes is not None and is_beyond:
            self.cut, self.complete = True, False


@dataclass(slots=True)
class _Level:
    """A folder on the way down. Its descriptor is closed (-1) while the walk is far below it.

    `mode` is what its owner had closed it with, to be closed again.
    """

    descriptor: int
    mode: int | None
    key: _Key
    rest: list[str]


def measure(roots: Iterable[int], most_inodes: int | None = None) -> Space:
    """All that is in these folders (descriptors, which stay open) on their file systems; no link is followed. Blocks.

    O_PATH will do, and is what reaches a folder that its owner has closed. Of any depth: above the 64 innermost folders
    the way back leads through `..`, and is checked.
    """
    space = Space(most_inodes=most_inodes)
    for root in roots:
        space.add(os.fstat(root))
        _walk(root, space)
    return space


def _walk(root: int, space: Space) -> None:
    top = os.fstat(root)
    device = top.st_dev
    levels = [_level(*_open(root, stat.S_IMODE(top.st_mode)), space)]
    try:
        while levels and space.complete:
            here = levels[-1]
            if not here.rest:
                _back(levels, space)
                continue
            inner = _enter(here.rest.pop(), here.descriptor, device)
            if inner is None:
                continue
            levels.append(_level(*inner, space))
            if len(levels) > _HELD_DESCRIPTORS:
                _let_go(levels[-_HELD_DESCRIPTORS - 1])
    finally:
        for level in levels:
            _leave(level)


def _level(descriptor: int, mode: int | None, space: Space) -> _Level:
    """Count what is in the folder; the names of its folders are kept."""
    found = os.fstat(descriptor)
    folders = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            try:
                space.add(entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
            if not space.complete:
                break
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
    return _Level(descriptor, mode, (found.st_dev, found.st_ino), folders)


def _enter(name: str, parent: int, device: int) -> tuple[int, int | None] | None:
    """The folder, and the mode that its owner had closed it with; None if it is gone, no folder, or a mount point."""
    try:
        handle = os.open(name, _HANDLE, dir_fd=parent)
    except OSError:
        return None
    try:
        found = os.fstat(handle)
        return None if found.st_dev != device else _open(handle, stat.S_IMODE(found.st_mode))
    except OSError:
        return None
    finally:
        os.close(handle)


def _open(handle: int, mode: int) -> tuple[int, int | None]:
    path, flags = f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        return os.open(path, flags), None
    os.chmod(path, mode | 0o500)
    return os.open(path, flags), mode


def _back(levels: list[_Level], space: Space) -> None:
    """Leave the innermost folder for the one that it was entered from."""
    done = levels.pop()
    try:
        if levels and levels[-1].descriptor < 0:
            above = os.open("..", _FOLDER, dir_fd=done.descriptor)
            found = os.fstat(above)
            levels[-1].descriptor = above
            if (found.st_dev, found.st_ino) != levels[-1].key:
                _give_up(levels, space)
    except OSError:
        _give_up(levels, space)
    finally:
        _leave(done)


def _give_up(levels: list[_Level], space: Space) -> None:
    space.complete = False
    for level in levels:
        _leave(level)
    levels.clear()


def _leave(level: _Level) -> None:
    """Close the descriptor, and the folder as it was, unless its owner has changed that meanwhile."""
    if level.descriptor < 0:
        return
    if level.mode is not None and stat.S_IMODE(os.fstat(level.descriptor).st_mode) == level.mode | 0o500:
        os.fchmod(level.descriptor, level.mode)
    _let_go(level)


def _let_go(level: _Level) -> None:
    if level.descriptor >= 0:
        os.close(level.descriptor)
        level.descriptor = -1


def deleted(pids: Iterable[int], device: int) -> Space:
    """Files of this file system that have no name any more and that these processes hold open. Blocks.

    A process that does not let itself be looked at shows none.
    """
    space = Space()
    seen: set[_Key] = set()
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                found = Path(f"/proc/{pid}/fd/{name}").stat()
            except OSError:
                continue
            key = (found.st_dev, found.st_ino)
            if found.st_nlink == 0 and found.st_dev == device and key not in seen:
                seen.add(key)
                space.add(found)
    return space
