"""A private mount namespace in which a dropped uid reaches folders that lie under ancestors it cannot enter.

bwrap is never run as root, and the uid it runs as can pass neither the host's 0700 data folder nor a user's
0700 home; descriptors do not help (bwrap resolves /proc/self/fd/N by its path). So a short-lived thread of this
process takes a mount namespace of its own, binds every source below a 0711 folder, and leaves. Only a descriptor
holds the namespace: a SIGKILL of the host leaves no mount behind.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kandev_sandbox import libc
from kandev_sandbox.apart import apart
from kandev_sandbox.errors import StagingFailed

STAGE = "/tmp"  # noqa: S108 - of the private namespace; any folder that every machine has
SNAPSHOT_MAX_BYTES = 1 << 20
_ROOT_FIX = "run as an ordinary user, or give this container CAP_SYS_ADMIN"


@dataclass(frozen=True, slots=True)
class Source:
    """What to show; a file is copied for `reader` when the reader could not read it and it is read-only."""

    path: Path
    read_only: bool


@dataclass(slots=True)
class Stage:
    """`namespace` is the descriptor that keeps it alive; `paths` says where each source lies in it."""

    namespace: int
    paths: dict[Path, str]

    def close(self) -> None:
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1


Finish = Callable[[Mapping[Path, str]], None]


def stage(sources: Iterable[Source], reader: int, finish: Finish | None = None) -> Stage:
    """Build the namespace. Needs CAP_SYS_ADMIN; blocks for about half a millisecond.
    `finish` is called in there with the places of the sources.

    Raises `StagingFailed` when a source is missing or the mounts are refused.
    """
    try:
        return apart(_build, sources, reader, finish)
    except OSError as error:
        fix = _ROOT_FIX if isinstance(error, PermissionError) else None
        raise StagingFailed(f"The jail's folders cannot be staged: {error}.", fix) from error


def _build(sources: Iterable[Source], reader: int, finish: Finish | None) -> Stage:
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_PRIVATE)
    opened: list[tuple[Source, int]] = []
    paths: dict[Path, str] = {}
    try:
        # Before the stage covers /tmp, since sources may lie there.
        for source in dict.fromkeys(sources):
            opened.append((source, os.open(os.path.realpath(source.path), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)))  # noqa: PERF401 - what is open must be closed when the next fails
        libc.mount("kandev", STAGE, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=0711,size=64m,nr_inodes=4096")
        parents: dict[Path, str] = {}
        for source, descriptor in opened:
            # Neighbours stay neighbours: a bundled bwrap finds its libraries beside its folder.
            place = parents.setdefault(source.path.parent, f"{STAGE}/{len(parents)}")
            os.makedirs(place, exist_ok=True)
            os.chmod(place, 0o711)  # noqa: S103 - passable, not listable
            paths[source.path] = f"{place}/{source.path.name}"
            _show(source, descriptor, paths[source.path], reader)
        if finish is not None:
            finish(paths)
    finally:
        for _, descriptor in opened:
            os.close(descriptor)
    return Stage(os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), paths)


def _show(source: Source, descriptor: int, target: str, reader: int) -> None:
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        if source.read_only and not _readable(found, reader):
            raise StagingFailed(f"The jail's uid cannot enter {source.path}.", f"chmod -R go+rX {source.path}")
        os.mkdir(target, 0o700)
    elif stat.S_ISREG(found.st_mode) and source.read_only and not _readable(found, reader):
        _snapshot(descriptor, target, found.st_size, reader)
        return
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    libc.mount(f"/proc/thread-self/fd/{descriptor}", target, flags=libc.MS_BIND | libc.MS_REC)


def _readable(found: os.stat_result, reader: int) -> bool:
    """By the mode alone; a folder must let it enter."""
    wanted = stat.S_IRUSR if found.st_uid == reader else stat.S_IRGRP if found.st_gid == reader else stat.S_IROTH
    if stat.S_ISDIR(found.st_mode):
        wanted >>= 2
    return bool(found.st_mode & wanted)


def _snapshot(descriptor: int, target: str, size: int, reader: int) -> None:
    if size > SNAPSHOT_MAX_BYTES:
        raise StagingFailed(
            f"A file of {size} bytes that the jail's uid cannot read is too large to copy in ({target}).",
            "make it readable to others (chmod o+r)",
        )
    with open(f"/proc/thread-self/fd/{descriptor}", "rb") as file:
        content = file.read(SNAPSHOT_MAX_BYTES)
    copy = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)
    try:
        os.fchown(copy, reader, reader)
        os.write(copy, content)
    finally:
        os.close(copy)
