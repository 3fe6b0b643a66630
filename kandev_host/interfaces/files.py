"""Files of a workspace as the host reads them: never through a link, never waiting, never more than asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

FileKind = Literal["file", "directory", "symlink", "other"]


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is relative to the workspace; `size_bytes` is of regular files, `target` of symbolic links.

    Names that are not UTF-8 are as `os.fsdecode` makes them.
    """

    path: str
    kind: FileKind
    size_bytes: int | None = None
    mode: int = 0
    modified_at: datetime | None = None
    target: str | None = None


class FileContent(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a regular file, from `offset` on; `size_bytes` is the whole file's."""

    content: bytes
    offset: int
    size_bytes: int


class PlaceUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a place (workspace, home and tmp) takes of the disk; the limits are None where nothing holds them.

    `enforced`: the kernel refuses more. Otherwise the host looks from time to time and ends what goes beyond.
    """

    bytes: int
    inodes: int
    bytes_limit: int | None = None
    inodes_limit: int | None = None
    enforced: bool = False
