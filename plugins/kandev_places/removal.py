"""Deleting a folder that a hostile program filled: of any depth, with any modes, and never through a link.

`shutil.rmtree` recurses and holds a descriptor per level, so that a folder some thousand levels deep (one `mkdir` each)
could never be deleted. Here inner folders are moved up to the top before they are emptied: two levels are enough.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


def remove_tree(root: Path) -> None:
    """Delete `root` and all in it, as the owner of all of it or as root. Nothing may run in it. Blocks.

    Raises `OSError` for what cannot be deleted (a mount point, an immutable file), and if `root` is no folder.
    """
    with _opened(os.fspath(root), None) as top:
        names = (f".kandev-{number}" for number in count())
        while folders := _unlink_files(top):
            for folder in folders:
                _empty_into(top, folder, names)
    root.rmdir()


def _empty_into(top: int, name: str, names: Iterator[str]) -> None:
    """Delete the folder `name` of `top`, after moving the folders in it to `top`."""
    with _opened(name, top) as folder:
        for inner in _unlink_files(folder):
            # A folder that its owner may not write to cannot be moved either: its `..` changes.
            with _opened(inner, folder):
                _move(inner, folder, top, names)
    os.rmdir(name, dir_fd=top)


def _move(name: str, folder: int, top: int, names: Iterator[str]) -> None:
    for free in names:
        try:
            os.rename(name, free, src_dir_fd=folder, dst_dir_fd=top)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return


def _unlink_files(folder: int) -> list[str]:
    """Delete whatever is no folder; the names of those that are."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return folders


@contextmanager
def _opened(name: str, parent: int | None) -> Iterator[int]:
    """The folder, readable and writable for its owner whatever its mode was."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        own = f"/proc/self/fd/{handle}"
        if parent is not None and os.fstat(handle).st_dev != os.fstat(parent).st_dev:
            raise OSError(errno.EXDEV, "Something is mounted there", name)
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod(own, 0o700)
        descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(handle)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
