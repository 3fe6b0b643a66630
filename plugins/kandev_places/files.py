"""Files of a workspace, shown and read for the host: kandev_sandbox.reading, in the host's own words and errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from kandev_host import FileContent, FileEntry, errors
from kandev_places.places import Places
from kandev_sandbox import reading

T = TypeVar("T")


def list_files(places: Places, workspace_id: str, path: str, depth: int, limit: int, after: str) -> list[FileEntry]:
    """As `Runtime.list_files`. Blocks."""
    found = _read(places, workspace_id, path, lambda folder: reading.list_tree(folder, path, depth, limit, after=after))
    return [_entry(entry) for entry in found]


def read_file(places: Places, workspace_id: str, path: str, offset: int, limit_bytes: int) -> FileContent:
    """As `Runtime.read_file`. Blocks."""
    part = _read(places, workspace_id, path, lambda folder: reading.read_part(folder, path, offset, limit_bytes))
    return FileContent(content=part.content, offset=part.offset, size_bytes=part.size)


def _read(places: Places, workspace_id: str, path: str, read: Callable[[int], T]) -> T:
    folder = places.open_workspace(workspace_id)
    try:
        return read(folder)
    except reading.FileMissing as error:
        raise errors.NotFound("file", os.fsencode(path).decode("utf-8", "replace")) from error
    except reading.FileRefused as error:
        raise errors.ValidationFailed("path", error.reason) from error
    except TimeoutError as error:
        raise errors.TimedOut("The folder has too many files to be listed in time: list one inside of it") from error
    finally:
        os.close(folder)


def _entry(entry: reading.Entry) -> FileEntry:
    return FileEntry(
        path=entry.path,
        kind=entry.kind,
        size_bytes=entry.size,
        mode=entry.mode,
        modified_at=_time(entry.modified_s),
        target=entry.target,
    )


def _time(seconds: float) -> datetime | None:
    """None for a time that no calendar has: a file's may be set to any."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
