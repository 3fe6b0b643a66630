"""The places in a jail's writable folders where something is bound: made here, before bwrap, and through no link.

bwrap makes a missing mount point itself, and follows links on the way there while the host's root is still in reach
(at /oldroot). A link that an earlier command left in its home would have it make files and folders outside.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from kandev_sandbox.argv import TMP
from kandev_sandbox.errors import PolicyError
from kandev_sandbox.policy import HOME, WORKSPACE, Bind, Policy

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def needed(policy: Policy) -> list[tuple[Path, PurePosixPath, Bind]]:
    """Folder of the host, path below it, and what is bound there; not what lies in another bind."""
    targets = {PurePosixPath(bind.inside) for bind in policy.binds}
    found = []
    for bind in policy.binds:
        inside = PurePosixPath(bind.inside)
        for folder, place in ((policy.workspace, WORKSPACE), (policy.home, HOME), (policy.tmp, TMP)):
            if folder is not None and inside.is_relative_to(place) and targets.isdisjoint(inside.parents):
                found.append((folder, inside.relative_to(place), bind))
    return found


def make(policy: Policy) -> None:
    """Make those that are missing, as the jail's uid. Blocks. Raises `PolicyError` when a link is in the way."""
    for folder, below, bind in needed(policy):
        try:
            is_folder = bind.source.is_dir()
        except PermissionError:
            continue  # an ordinary user's own mistake, and no link: bwrap says which source it cannot reach
        try:
            _make(folder, below.parts, is_folder, policy.uid)
        except OSError as error:
            raise PolicyError(
                f"Nothing can be shown at {bind.inside}: there is a link or something else in the way "
                f"({error.strerror}).",
                f"look at {folder / below}, and remove what an agent left there",
            ) from error


def _make(root: Path, parts: tuple[str, ...], is_folder: bool, uid: int | None) -> None:
    folders = parts if is_folder else parts[:-1]
    folder = os.open(root, _FOLDER)
    try:
        for name in folders:
            inner = _open_folder(folder, name, uid)
            os.close(folder)
            folder = inner
        if not is_folder:
            _make_file(folder, parts[-1], uid)
    finally:
        os.close(folder)


def _open_folder(parent: int, name: str, uid: int | None) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return os.open(name, _FOLDER, dir_fd=parent)
    if uid is not None:
        os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)
    return os.open(name, _FOLDER, dir_fd=parent)


def _make_file(parent: int, name: str, uid: int | None) -> None:
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o400, dir_fd=parent))
    except FileExistsError:
        if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        return
    if uid is not None:
        os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)
