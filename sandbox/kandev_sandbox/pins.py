"""Paths of the workspace that a jail can neither change nor move: git's hooks and configuration, and what is protected.

A folder or file that is mounted onto itself cannot be renamed or removed inside (EBUSY), and a read-only mount cannot
be written to, not even by a jail inside of the jail. What lies there was left by an agent, so every path is walked
from the workspace down, one component at a time, through no link; and what was checked is what is mounted: a
descriptor, never a path. If somebody swaps it meanwhile, there is no jail.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kandev_sandbox import libc, mountpoints
from kandev_sandbox.errors import StagingFailed
from kandev_sandbox.policy import WORKSPACE, Policy
from kandev_sandbox.walking import OPEN, walk

GIT = PurePosixPath(".git")
HOOKS = GIT / "hooks"
# What makes git run commands, or look for them elsewhere (gitrepository-layout(5)).
_GIT_CONFIGURATION = (GIT / "config", GIT / "config.worktree", GIT / "commondir")


@dataclass(frozen=True, slots=True)
class Pin:
    """A regular file or folder of the workspace that is there now. Whoever asked for it closes `descriptor`."""

    path: PurePosixPath
    descriptor: int
    read_only: bool

    @property
    def inside(self) -> str:
        return f"{WORKSPACE}/{self.path}"


@contextmanager
def found(policy: Policy, workspace: str) -> Iterator[list[Pin]]:
    """Those of the policy that are in this folder now, outer ones first; open until the context is left. Blocks.

    A path that leads through a link, or to what is neither a file nor a folder, is not among them. git's folder of
    hooks is made where it is missing, or the agent would make it.
    """
    if policy.workspace_read_only:
        yield []
        return
    with ExitStack() as stack:
        root = os.open(workspace, OPEN | os.O_DIRECTORY)
        stack.callback(os.close, root)
        if policy.pin_git:
            _make_hooks(root, policy.uid)
        pins = []
        for path, read_only in sorted(_wanted(policy).items(), key=lambda item: item[0].parts):
            descriptor = walk(root, path)
            if descriptor is None:
                continue
            stack.callback(os.close, descriptor)
            # What can be written in it, and therefore only holds others, is a folder; but a `.git` may be a file.
            kind = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(kind) or stat.S_ISREG(kind):
                pins.append(Pin(path, descriptor, read_only or stat.S_ISREG(kind)))
        yield pins


def fasten(policy: Policy, paths: Mapping[Path, str]) -> None:
    """Make the mounts in the calling thread's mount namespace, where all folders of the policy lie at `paths`.

    Also those of what is bound in folders that the jail can write to. Raises `StagingFailed` when something was swapped
    while this was done.
    """
    mountpoints.fasten(policy, paths)
    staged = paths[policy.workspace]
    with found(policy, staged) as pins:
        if not pins:
            return
        closed = tempfile.mkdtemp(dir=os.path.dirname(staged))
        libc.mount(staged, closed, flags=libc.MS_BIND)
        libc.close_mount(closed)
        # From the inside out: an outer folder is bound with the mounts that are in it.
        for pin in reversed(pins):
            _fasten(pin, closed)
        for pin in pins:
            _check(pin, staged)


def _wanted(policy: Policy) -> dict[PurePosixPath, bool]:
    """Path below the workspace → read-only? Folders above a pinned path are pinned, or they would be renamed."""
    read_only = [PurePosixPath(path) for path in policy.protected]
    if policy.pin_git:
        read_only += [HOOKS, *_GIT_CONFIGURATION]
    above = [folder for path in read_only for folder in path.parents if folder.parts]
    return {**dict.fromkeys(above, False), **dict.fromkeys(read_only, True)}


def _make_hooks(root: int, uid: int | None) -> None:
    folder = walk(root, GIT)
    if folder is None:
        return
    try:
        os.mkdir(HOOKS.name, 0o755, dir_fd=folder)
        if uid is not None:
            os.chown(HOOKS.name, uid, uid, dir_fd=folder, follow_symlinks=False)
    except (FileExistsError, NotADirectoryError, PermissionError):
        pass  # it is there, there is no such folder, or the agent could not make it either
    finally:
        os.close(folder)


def _fasten(pin: Pin, closed: str) -> None:
    target = f"/proc/thread-self/fd/{pin.descriptor}"
    if not pin.read_only:
        libc.mount(target, target, flags=libc.MS_BIND | libc.MS_REC)
        return
    # A bind of what is mounted read-only is read-only from its first moment.
    root = os.open(closed, OPEN | os.O_DIRECTORY)
    try:
        source = walk(root, pin.path)
    finally:
        os.close(root)
    if source is None:
        raise _swapped(pin)
    try:
        if not _same(source, pin.descriptor):
            raise _swapped(pin)
        libc.mount(f"/proc/thread-self/fd/{source}", target, flags=libc.MS_BIND)
    finally:
        os.close(source)


def _check(pin: Pin, staged: str) -> None:
    """Seen by its path, it is the mount that was made."""
    root = os.open(staged, OPEN | os.O_DIRECTORY)
    try:
        seen = walk(root, pin.path)
    finally:
        os.close(root)
    if seen is None:
        raise _swapped(pin)
    try:
        closed = bool(os.fstatvfs(seen).f_flag & os.ST_RDONLY)
        mounted = _mount_id(seen) != _mount_id(pin.descriptor)
        if not (mounted and _same(seen, pin.descriptor) and (closed or not pin.read_only)):
            raise _swapped(pin)
    finally:
        os.close(seen)


def _same(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))


def _mount_id(descriptor: int) -> str:
    """proc(5): /proc/PID/fdinfo."""
    lines = Path(f"/proc/thread-self/fdinfo/{descriptor}").read_text().splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))


def _swapped(pin: Pin) -> StagingFailed:
    return StagingFailed(
        f"{pin.inside} was replaced while the jail was built.", "end the other processes of this workspace; try again"
    )
