"""Small files with a secret, for their owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from kandev_host.errors import StartupError

LIMIT_BYTES = 4096


def read_private(path: Path, *, fix: str, fix_wider: str) -> bytes | None:
    """What is in it, None if it is not there. Links are not followed.

    Raises `StartupError` with the `fix` when it cannot be trusted, with `fix_wider` when others may read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "is a symbolic link" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise StartupError(f"{path} {why}: {fix}") from error
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StartupError(f"{path} is not a regular file: {fix}")
        if found.st_uid != os.geteuid():
            raise StartupError(f"{path} belongs to user {found.st_uid}, not to you: {fix}")
        if found.st_mode & 0o077:
            raise StartupError(f"Others may read {path}: {fix_wider}")
        return file.read(LIMIT_BYTES)


def read_small(path: Path) -> bytes | None:
    """The first bytes of a regular file; None if there is none, or it cannot be read. It waits for nobody's pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(LIMIT_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def write_private(path: Path, content: bytes, *, replace: bool) -> None:
    """On the disk when it returns, whole, mode 0600. What is there already stays unless it may `replace` it.

    Raises `OSError`.
    """
    # Written aside first: whoever reads it reads all of it; and of two that make one, one wins.
    aside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            aside.replace(path)
        else:
            os.link(aside, path, follow_symlinks=False)
    except FileExistsError:
        return
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
