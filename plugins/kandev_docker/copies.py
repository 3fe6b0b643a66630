"""Read-only files that the uid of a place could not read (a log-in of root's): shown to its containers as copies."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from kandev_docker.sources import Sources
from kandev_host import Mount, errors

MAX_BYTES = 1 << 20


class Copies:
    """In a folder that only the host may enter, one folder for each container. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sweep(self) -> None:
        """Those of a host that died: a bound file stays where it is bound."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def made(self, name: str, mounts: Sequence[Mount], uid: int, sources: Sources) -> tuple[list[Mount], list[Mount]]:
        """The mounts that stay as they are, and those of copies in place of the others. Raises `Unavailable`."""
        kept: list[Mount] = []
        copied: list[Mount] = []
        for mount in mounts:
            content = _unreadable(mount, uid, sources) if mount.read_only else None
            if content is None:
                kept.append(mount)
            else:
                copied.append(Mount(str(self._write(name, len(copied), content, uid)), mount.target))
        return kept, copied

    def remove(self, name: str) -> None:
        """Nothing if there are none."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def _write(self, name: str, number: int, content: bytes, uid: int) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / str(number)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            os.fchown(descriptor, uid, uid)
            file.write(content)
        return path


def _unreadable(mount: Mount, uid: int, sources: Sources) -> bytes | None:
    """The content of a regular file that this uid cannot read; None for all else."""
    try:
        descriptor = sources.open_file(mount.source)
    except OSError:
        return None  # not this user's either: the container hears of it
    if descriptor is None:
        return None
    found = os.fstat(descriptor)
    if _readable(found, uid):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > MAX_BYTES:
            raise errors.Unavailable(
                f"{mount.source} is not readable by the container's uid, and too large to be copied in.",
                fix=f"make it readable to others: chmod o+r {mount.source}",
            )
        return file.read(MAX_BYTES)


def _readable(found: os.stat_result, uid: int) -> bool:
    """By the mode alone, for a uid whose group is its own."""
    wanted = stat.S_IRUSR if found.st_uid == uid else stat.S_IRGRP if found.st_gid == uid else stat.S_IROTH
    return bool(found.st_mode & wanted)
