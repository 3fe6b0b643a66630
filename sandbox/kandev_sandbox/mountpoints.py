"""The places in a jail's writable folders where something is bound: made here, before bwrap, and through no link.

bwrap makes a missing mount point itself, and follows links on the way there while the host's root is still in reach
(at /oldroot). A link that an earlier command left in its home would have it make files and folders outside. The mounts
themselves are made before bwrap runs as well, in a private namespace and by descriptor, so that no other jail of the
place can swap a folder for a link between the look and the mount: as root here, otherwise by userstage_helper.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from kandev_sandbox import libc, mountinfo
from kandev_sandbox.argv import TMP
from kandev_sandbox.errors import PolicyError, StagingFailed
from kandev_sandbox.policy import HOME, WORKSPACE, Bind, Policy
from kandev_sandbox.walking import walk

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def needed(policy: Policy) -> list[tuple[Path, PurePosixPath, Bind]]:
    """Folder of the host, path below it, and what is bound there, inner ones first. The folder may be another bind's.

    Not what lies in a bind that nobody in the jail can write to: nothing is made or swapped there.
    """
    binds = {PurePosixPath(bind.inside): bind for bind in policy.binds}
    found = []
    for inside, bind in sorted(binds.items(), key=lambda item: item[0].parts, reverse=True):
        outer = next((folder for folder in inside.parents if folder in binds), None)
        if outer is not None:
            if not binds[outer].read_only:
                found.append((binds[outer].source, inside.relative_to(outer), bind))
            continue
        for folder, place in ((policy.workspace, WORKSPACE), (policy.home, HOME), (policy.tmp, TMP)):
            if folder is not None and inside.is_relative_to(place):
                found.append((folder, inside.relative_to(place), bind))
    return found


def located(policy: Policy, folder: Path) -> Path:
    """Where such a folder is: a place of the jail is no link, the source of a bind may be one."""
    places = (policy.workspace, policy.home, policy.tmp)
    return folder if folder in places else Path(os.path.realpath(folder))


def make(policy: Policy) -> None:
    """Make those that are missing, as the jail's uid. Blocks. Raises `PolicyError` when a link is in the way."""
    for folder, below, bind in needed(policy):
        try:
            is_folder = bind.source.is_dir()
        except PermissionError:
            continue  # an ordinary user's own mistake, and no link: bwrap says which source it cannot reach
        try:
            _make(located(policy, folder), below.parts, is_folder, policy.uid)
        except OSError as error:
            raise PolicyError(
                f"Nothing can be shown at {bind.inside}: there is a link or something else in the way "
                f"({error.strerror}).",
                f"look at {folder / below}, and remove what an agent left there",
            ) from error


def fasten(policy: Policy, paths: Mapping[Path, str]) -> None:
    """Mount what is bound in writable folders, in the calling thread's mount namespace, where all lies at `paths`.

    Raises `StagingFailed` when a mount point was swapped since `make`.
    """
    for folder, below, bind in needed(policy):
        source, root = paths[bind.source], os.open(paths[folder], _FOLDER)
        try:
            target = walk(root, below)
            if target is None:
                raise _swapped(bind)
            try:
                if bind.read_only:
                    for place in mountinfo.places("thread-self"):
                        if PurePosixPath(place).is_relative_to(source):
                            libc.close_mount(place)
                libc.mount(source, f"/proc/thread-self/fd/{target}", flags=libc.MS_BIND | libc.MS_REC)
            finally:
                os.close(target)
            seen = walk(root, below)
            if seen is None:
                raise _swapped(bind)
            try:
                if not os.path.samestat(os.fstat(seen), os.stat(source)):
                    raise _swapped(bind)
            finally:
                os.close(seen)
        finally:
            os.close(root)


def _swapped(bind: Bind) -> StagingFailed:
    return StagingFailed(
        f"{bind.inside} was replaced while the jail was built.", "end the other processes of this workspace; try again"
    )


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
