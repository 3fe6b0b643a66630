"""workspace.get, .files, .read and .delete. (workspace.diff is with the agents' actions.)

Names of files are bytes: one that is not UTF-8 goes over the wire as base64, and `path_encoding` says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from kandev_host.models import Workspace
from kandev_host.protocol.actions.fields import Encoding, Id, Limit, Request, Response, Seq

FilePath = Annotated[str, Meta(max_length=8192)]
FileCursor = Annotated[str, Meta(min_length=1, max_length=65_536)]
Depth = Annotated[int, Meta(ge=1, le=64)]
ReadLimit = Annotated[int, Meta(ge=1, le=1 << 20)]
HolderKind = Literal["agent", "queue", "shell"]


class WorkspaceGet(Request, frozen=True, kw_only=True):
    """With `unsaved`, work that is nowhere else is looked for as well: that runs git, and takes as long as a diff."""

    task_id: Id
    unsaved: bool = False


class WorkspaceFiles(Request, frozen=True, kw_only=True):
    """What is below `path` (the workspace itself unless named), `depth` levels deep. No link is followed."""

    task_id: Id
    path: FilePath = ""
    path_encoding: Encoding = "utf-8"
    depth: Depth = 1
    limit: Limit = 100
    cursor: FileCursor | None = None


class WorkspaceRead(Request, frozen=True, kw_only=True):
    """At most `limit` bytes of a regular file, from the byte `offset` on. No link is followed."""

    task_id: Id
    path: Annotated[str, Meta(min_length=1, max_length=8192)]
    path_encoding: Encoding = "utf-8"
    offset: Seq = 0
    limit: ReadLimit = 262_144


class WorkspaceDelete(Request, frozen=True, kw_only=True):
    """Refused while something needs the workspace, or while it has work that is nowhere else, unless `force`."""

    task_id: Id
    force: bool = False


class PlaceLimits(Response, frozen=True, kw_only=True):
    """What workspace, home and tmp may take together; null is unlimited.

    `enforced`: the kernel refuses more. Else the host looks from time to time, and ends what goes beyond.
    """

    bytes: int | None
    inodes: int | None
    enforced: bool


class HolderInfo(Response, frozen=True, kw_only=True):
    """What needs the workspace now: an agent that lives, the task's entry of the queue, a shell that is open."""

    kind: HolderKind
    id: str


class UnsavedWork(Response, frozen=True, kw_only=True):
    """Files that differ from the last commit, and commits that nobody else has; `names` are the first of the files.

    Where that cannot be known, `reason` says why, and the rest is null.
    """

    files: int | None
    commits: int | None
    names: list[str]
    reason: str | None = None


class WorkspaceReply(Response, frozen=True, kw_only=True):
    """`path` is where the task's agents find it.

    `bytes` and `inodes` are what workspace, home and tmp take of the disk; null where the runtime does not say.
    `unsaved` is null unless asked for.
    """

    task_id: str
    workspace: Workspace
    path: str
    bytes: int | None
    inodes: int | None
    limits: PlaceLimits | None
    held_by: list[HolderInfo]
    unsaved: UnsavedWork | None = None


class WorkspaceDeleted(Response, frozen=True, kw_only=True):
    """`deleted` is false where there was none. `ended` is what needed it, of a deletion by force."""

    task_id: str
    deleted: bool
    ended: list[HolderInfo]


class FileInfo(Response, frozen=True, kw_only=True):
    """`size` is of regular files, `target` of symbolic links, `mode` the permission bits as a number."""

    path: str
    path_encoding: Encoding
    kind: Literal["file", "directory", "symlink", "other"]
    size: int | None
    mode: int
    modified_at: datetime | None
    target: str | None


class FilesReply(Response, frozen=True, kw_only=True):
    """A folder comes before what is in it; names are in order."""

    entries: list[FileInfo]
    next_cursor: str | None = None


class ReadReply(Response, frozen=True, kw_only=True):
    """Text as it is, anything else as base64. `size` is the whole file's; `next_offset` is null at its end."""

    content: str
    encoding: Encoding
    offset: int
    size: int
    next_offset: int | None = None
