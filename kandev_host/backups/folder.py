"""Where backups lie: their names, which there are, which of the automatic ones go."""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from kandev_host.backups.archive import Manifest, opened
from kandev_host.errors import KandevError

logger = logging.getLogger(__name__)
FOLDER = "backups"
_NAME = re.compile(r"kandev-(auto-)?\d{8}T\d{6}Z(-\d{1,3})?\.zip")
_AUTOMATIC = re.compile(r"kandev-auto-(\d{8}T\d{6}Z)(-\d{1,3})?\.zip")
_PARTIAL = re.compile(r"\.kandev-(auto-)?\d{8}T\d{6}Z(-\d{1,3})?\.zip\.(copy|partial)(-wal|-shm|-journal)?")
_TIME = "%Y%m%dT%H%M%SZ"


class Backup(msgspec.Struct, frozen=True):
    """One file of the folder; one without a manifest has a `problem`."""

    path: Path
    size_bytes: int
    manifest: Manifest | None
    problem: str | None = None


def prepared(folder: Path) -> Path:
    """The folder, made for its owner alone. What a killed backup left half done is removed: no other one runs."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return folder


def free_name(folder: Path, at: datetime, *, automatic: bool) -> str:
    """A name that nothing there has."""
    stem = f"kandev-{'auto-' if automatic else ''}{at.astimezone(UTC).strftime(_TIME)}"
    names = (f"{stem}{f'-{number}' if number else ''}.zip" for number in range(1000))
    return next(name for name in names if not os.path.lexists(folder / name))


def backups(folder: Path) -> list[Backup]:
    """Those of the folder, the newest first; half ones have other names."""
    if not folder.is_dir():
        return []
    found = [_look(path) for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda backup: _order(backup.path), reverse=True)


def newest_automatic(folder: Path) -> datetime | None:
    """When the last automatic backup was made; by its name, so that no file is opened."""
    if not folder.is_dir():
        return None
    names = (_AUTOMATIC.fullmatch(path.name) for path in folder.iterdir())
    return max((datetime.strptime(name[1], _TIME).replace(tzinfo=UTC) for name in names if name), default=None)


def by_hand(folder: Path) -> int:
    """How many there are that somebody had made; by their names, too."""
    if not folder.is_dir():
        return 0
    return sum(bool(_NAME.fullmatch(path.name)) and not _AUTOMATIC.fullmatch(path.name) for path in folder.iterdir())


def prune(folder: Path, keep: int) -> list[str]:
    """Remove the oldest automatic backups beyond `keep`; their names. Nobody's own backups are touched."""
    automatic = [path for path in folder.iterdir() if _AUTOMATIC.fullmatch(path.name)]
    gone = sorted(automatic, key=_order, reverse=True)[keep:]
    for path in gone:
        path.unlink(missing_ok=True)
        logger.info("The automatic backup %s was removed: %s newer ones are kept", path.name, keep)
    return [path.name for path in gone]


def _look(path: Path) -> Backup:
    try:
        size = path.stat().st_size
        with opened(path) as archive:
            return Backup(path, size, archive.manifest)
    except KandevError as error:
        return Backup(path, size, None, error.message)
    except OSError as error:
        return Backup(path, 0, None, error.strerror or str(error))


def _order(path: Path) -> tuple[str, int]:
    """By its name: when it was made, and which one of that second it is."""
    at, _, number = path.stem.removeprefix("kandev-").removeprefix("auto-").partition("-")
    return at, int(number or 0)
