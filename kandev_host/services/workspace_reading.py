"""A task's workspace, looked at from outside while its agents work: what it takes, who needs it, what is in it."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence

from kandev_host.errors import TimedOut, Unavailable, ValidationFailed
from kandev_host.interfaces import FileEntry, PlaceUse, Principal
from kandev_host.models import Workspace
from kandev_host.protocol.actions.fields import Encoding
from kandev_host.protocol.actions.workspaces import (
    FileInfo,
    FilesReply,
    PlaceLimits,
    ReadReply,
    UnsavedWork,
    WorkspaceFiles,
    WorkspaceGet,
    WorkspaceRead,
    WorkspaceReply,
)
from kandev_host.services.git import WORKSPACE
from kandev_host.services.holders import Holders
from kandev_host.services.workspaces import WorkspaceService

PAGE_BYTES = 1 << 20
_TEXT_CONTROLS = b"\t\n\r"
_CONTROLS = bytes(code for code in range(32) if code not in _TEXT_CONTROLS)


class WorkspaceReading:
    """Nothing here runs in a jail or needs one: the runtime reads the files themselves."""

    def __init__(self, workspaces: WorkspaceService, holders: Holders) -> None:
        self._workspaces = workspaces
        self._holders = holders

    async def get(self, principal: Principal, request: WorkspaceGet) -> WorkspaceReply:
        """Raises `NotFound` without task or workspace."""
        del principal
        workspace = await self._workspaces.get(request.task_id)
        use = await self._use(workspace.id, workspace.runtime)
        return WorkspaceReply(
            task_id=workspace.id,
            workspace=workspace,
            path=WORKSPACE,
            bytes=None if use is None else use.bytes,
            inodes=None if use is None else use.inodes,
            limits=None if use is None else _limits(use),
            held_by=await self._holders.of(workspace.id),
            unsaved=await self._unsaved(workspace) if request.unsaved else None,
        )

    async def _unsaved(self, workspace: Workspace) -> UnsavedWork:
        try:
            found = await self._workspaces.unsaved(workspace)
        except (Unavailable, TimedOut) as error:
            return UnsavedWork(files=None, commits=None, names=[], reason=error.message)
        return UnsavedWork(files=found.files, commits=found.commits, names=list(found.names))

    async def _use(self, workspace_id: str, runtime: str) -> PlaceUse | None:
        try:
            return await self._workspaces.runtime(runtime).use(workspace_id)
        except Unavailable:
            return None

    async def files(self, principal: Principal, request: WorkspaceFiles) -> FilesReply:
        """Raises `NotFound`, `ValidationFailed` for what is no folder below the workspace, `TimedOut`."""
        del principal
        workspace = await self._workspaces.get(request.task_id)
        path = _path("path", request.path, request.path_encoding)
        after = "" if request.cursor is None else _path("cursor", request.cursor, "base64")
        runtime = self._workspaces.runtime(workspace.runtime)
        found = await runtime.list_files(workspace.id, path, request.depth, request.limit + 1, after)
        page = _fitting(found[: request.limit])
        more = len(found) > len(page)
        return FilesReply(
            entries=[_info(entry) for entry in page], next_cursor=_base64(os.fsencode(page[-1].path)) if more else None
        )

    async def read(self, principal: Principal, request: WorkspaceRead) -> ReadReply:
        """Raises `NotFound`, and `ValidationFailed` for what is no regular file below the workspace."""
        del principal
        workspace = await self._workspaces.get(request.task_id)
        path = _path("path", request.path, request.path_encoding)
        runtime = self._workspaces.runtime(workspace.runtime)
        part = await runtime.read_file(workspace.id, path, request.offset, request.limit)
        end = part.offset + len(part.content)
        content, encoding, left = shown(part.content, whole=end >= part.size_bytes)
        more = bool(part.content) and end - left < part.size_bytes
        return ReadReply(
            content=content,
            encoding=encoding,
            offset=part.offset,
            size=part.size_bytes,
            next_offset=end - left if more else None,
        )


def shown(content: bytes, *, whole: bool) -> tuple[str, Encoding, int]:
    """The content as text, or else as base64; and how many bytes at its end were left for the next part.

    Unless it is `whole` up to the end, a character that is cut there is left. Much of what is no text would take six
    times its size as JSON: base64, too.
    """
    controls = len(content) - len(content.translate(None, _CONTROLS))
    if controls * 8 > len(content) or b"\0" in content:
        return _base64(content), "base64", 0
    for left in range(1 if whole else 4):
        try:
            text = content[: len(content) - left].decode()
        except UnicodeDecodeError:
            continue
        if text or not content:
            return text, "utf-8", left
    return _base64(content), "base64", 0


def _path(field: str, path: str, encoding: Encoding) -> str:
    if encoding == "utf-8":
        return path
    try:
        return os.fsdecode(base64.b64decode(path, validate=True))
    except (binascii.Error, ValueError):
        raise ValidationFailed(field, "This is no base64") from None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _fitting(entries: Sequence[FileEntry]) -> Sequence[FileEntry]:
    """As many as fit a message, and one at least: paths may be long."""
    room = PAGE_BYTES
    for number, entry in enumerate(entries):
        room -= len(entry.path) + len(entry.target or "")
        if room < 0 and number:
            return entries[:number]
    return entries


def _info(entry: FileEntry) -> FileInfo:
    name = os.fsencode(entry.path)
    is_text = name.decode("utf-8", "replace") == entry.path
    return FileInfo(
        path=entry.path if is_text else _base64(name),
        path_encoding="utf-8" if is_text else "base64",
        kind=entry.kind,
        size=entry.size_bytes,
        mode=entry.mode,
        modified_at=entry.modified_at,
        target=None if entry.target is None else os.fsencode(entry.target).decode("utf-8", "replace"),
    )


def _limits(use: PlaceUse) -> PlaceLimits:
    return PlaceLimits(bytes=use.bytes_limit, inodes=use.inodes_limit, enforced=use.enforced)
