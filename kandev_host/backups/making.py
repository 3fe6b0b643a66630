"""Making a backup: a copy, checked, packed, and only then given its name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from kandev_host.backups.archive import SECRET_FILES, Manifest, digest, pack
from kandev_host.backups.folder import Backup, free_name, prepared
from kandev_host.errors import Conflict, StorageFull, Unavailable
from kandev_host.interfaces import Progress, StoreReport, Upkeep
from kandev_host.models import now
from kandev_host.version import __version__

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What a backup leaves free for everybody else.
RESERVE_BYTES = 64 << 20
COPY_S = 5.0


class Origin(msgspec.Struct, frozen=True):
    """What is backed up: a store of this name, and the data folder of its host."""

    upkeep: Upkeep
    store: str
    data_dir: Path


def make(
    origin: Origin,
    folder: Path,
    progress: Progress,
    *,
    name: str | None = None,
    automatic: bool = False,
    with_secrets: bool = False,
) -> Backup:
    """Make one in `folder`. Raises `StorageFull`, `Busy`, `Unavailable`, `Conflict` for a name that is taken.

    A file with its name is whole, checked and on the disk; until then it has another one.
    """
    size = origin.upkeep.size_bytes()
    if size is None:
        raise Unavailable("There is nothing to back up yet", fix="the first kandev-host up makes the database")
    with explained(folder):
        prepared(folder)
        at = now()
        name = name or free_name(folder, at, automatic=automatic)
        if os.path.lexists(folder / name):
            raise Conflict(f"{folder / name} is there already; choose another name")
        check_room(folder, 2 * size)
        with partial(folder / f".{name}.copy") as copy, partial(folder / f".{name}.partial") as packed:
            origin.upkeep.back_up(copy, progress, with_secrets=with_secrets)
            report = sound(origin.upkeep.inspect(progress, copy=copy))
            secrets = _secrets(origin.data_dir) if with_secrets else {}
            manifest = Manifest(
                version=__version__,
                store=origin.store,
                schema_version=report.schema_version,
                journal_id=report.journal_id,
                head=report.head,
                created_at=at,
                automatic=automatic,
                size_bytes=copy.stat().st_size,
                sha256=digest(copy, progress),
                counts=dict(report.counts),
                secrets=tuple(secrets),
            )
            pack(packed, manifest, copy, secrets, progress)
            packed.rename(folder / name)
            synchronise(folder)
        return Backup(folder / name, (folder / name).stat().st_size, manifest)


def sound(report: StoreReport) -> StoreReport:
    """Raises `Unavailable` unless it is."""
    if report.problems:
        more = f" and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
        raise Unavailable(
            f"The database is damaged: {report.problems[0]}{more}",
            fix="kandev-host db check says more; kandev-host restore puts a sound backup in its place",
        )
    return report


def check_room(folder: Path, needed: int) -> None:
    """Raises `StorageFull` before anything is written, so that the host never lacks what a backup takes."""
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE_BYTES:
        raise StorageFull(
            f"{folder} has {free >> 20} MiB free, and this needs {(needed + RESERVE_BYTES) >> 20} MiB: make room, or"
            " choose another folder ([backup] folder)"
        )


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A file that is gone afterwards, unless it was given another name; and so is what a store puts beside it."""
    try:
        _remove(path)
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    for found in path.parent.iterdir():
        if found.name.startswith(path.name):
            found.unlink(missing_ok=True)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """What the file system refuses, as an error with the way out."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise StorageFull(f"The disk or quota of {folder} is full; nothing was kept: make room") from error
        raise Unavailable(
            f"{error.filename or folder}: {error.strerror or error}",
            fix="check that it is there and that you may write there",
        ) from error


def synchronise(folder: Path) -> None:
    """Wait until the names in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _secrets(data_dir: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, limit in SECRET_FILES.items():
        path = data_dir / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        with os.fdopen(descriptor, "rb") as file:
            content = _copied(path) if name.endswith(".db") else file.read(limit + 1)
        if len(content) > limit:
            raise Unavailable(
                f"{path} is larger than {limit} bytes: it cannot go into a backup", fix="leave secrets out"
            )
        found[name] = content
    return found


def _copied(path: Path) -> bytes:
    """A small database as it is between two transactions, also while it is written."""
    import sqlite3  # Python's own, beside the store's: a library of a MiB, for whoever asks for secrets

    source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=COPY_S)
    try:
        with closing(sqlite3.connect(":memory:")) as copy:
            source.backup(copy)
            return copy.serialize()
    except sqlite3.Error as error:
        raise Unavailable(f"{path} cannot be read: {error}", fix="leave secrets out, or restore it") from error
    finally:
        source.close()
