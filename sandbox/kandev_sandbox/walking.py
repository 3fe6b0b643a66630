"""The way to a path in a folder that a hostile program fills: one component at a time, and through no link."""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath

OPEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(root: int, path: PurePosixPath) -> int | None:
    """The descriptor (O_PATH) of what is there; None when nothing is, or the way leads through a link."""
    current = os.dup(root)
    for name in path.parts:
        try:
            inner = os.open(name, OPEN, dir_fd=current)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        finally:
            os.close(current)
        current = inner
    if stat.S_ISLNK(os.fstat(current).st_mode):
        os.close(current)
        return None
    return current
