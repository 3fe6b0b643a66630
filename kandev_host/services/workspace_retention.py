"""How long workspaces stay by themselves, and how much they may take together; unless the settings say, for ever.

Only those go whose task is known and over, that nobody needs, and that hold no work that is nowhere else: what cannot
be known stays (reliability: cleanup disasters).
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from types import TracebackType

import anyio
import msgspec

from kandev_host.errors import KandevError, Unavailable
from kandev_host.interfaces import Principal, Store
from kandev_host.intervals import until_due
from kandev_host.models import AgentInstance, Task, TaskState, Workspace, now
from kandev_host.protocol.actions.workspaces import WorkspaceDelete
from kandev_host.services.rows import every
from kandev_host.services.workspace_keeping import WorkspaceKeeping
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.settings import WorkspaceSettings

log = logging.getLogger(__name__)
HOST = Principal("host", "host", "host")
OVER: tuple[TaskState, ...] = ("COMPLETED", "FAILED", "CANCELLED")


class _Kept(msgspec.Struct, frozen=True):
    """One that is there; `used_at` is None of one whose task is not over."""

    workspace: Workspace
    used_at: datetime | None
    bytes: int


class WorkspaceRetention:
    """Use as an async context manager: it looks every `retention_interval_s`, while there is anything to look for."""

    def __init__(
        self, store: Store, workspaces: WorkspaceService, keeping: WorkspaceKeeping, settings: WorkspaceSettings
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._keeping = keeping
        self._settings = settings
        self._started, self._started_s = now(), time.monotonic()
        self._looking = anyio.Lock()
        workspaces.on_new = self.check_room

    async def __aenter__(self) -> WorkspaceRetention:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._run, name="workspace retention")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def _run(self) -> None:
        while True:
            await until_due(lambda: self._settings.retention_interval_s)
            if self._settings.kept_s is None and self._settings.quota_bytes is None:
                continue
            try:
                await self.look()
            except KandevError as error:
                log.warning("Workspaces could not be looked through: %s", error.message)

    async def check_room(self) -> None:
        """Raise `Unavailable` when a new workspace would go beyond the quota, and none may go for it."""
        quota = self._settings.quota_bytes
        if quota is None:
            return
        held = await self.look()
        if held >= quota:
            raise Unavailable(
                f"The workspaces take {held} of {quota} bytes",
                reason="quota",
                fix="delete some: kandev-host workspace delete TASK; or raise [workspace] quota_bytes",
            )

    async def look(self) -> int:
        """Delete what is due, the one that was used least recently first; the bytes that the others take."""
        async with self._looking:
            there = [await self._seen(row) async for row in every(self._store, Workspace, [])]
            held = sum(one.bytes for one in there)
            for one in sorted((one for one in there if one.used_at is not None), key=lambda one: one.used_at or now()):
                if self._due(one, held) and await self._remove(one.workspace):
                    held -= one.bytes
            return held

    def _due(self, one: _Kept, held: int) -> bool:
        kept_s, quota = self._settings.kept_s, self._settings.quota_bytes
        if one.used_at is None:
            return False
        if kept_s is not None and one.used_at < self._now() - timedelta(seconds=kept_s):
            return True
        return quota is not None and held >= quota

    async def _remove(self, workspace: Workspace) -> bool:
        try:
            reply = await self._keeping.delete(HOST, WorkspaceDelete(task_id=workspace.id))
        except KandevError as error:
            log.info("The workspace of task %s is due and stays: %s", workspace.id, error.message)
            return False
        log.info("The workspace of task %s was deleted: it was due", workspace.id)
        return reply.deleted

    async def _seen(self, workspace: Workspace) -> _Kept:
        task = await self._store.get(Task, workspace.id)
        used_at = None
        if task is not None and task.state in OVER and workspace.removing_at is None:
            newest = await self._store.find(
                AgentInstance, [("task_id", "=", task.id)], order=("-created_at", "id"), limit=1
            )
            used_at = max([workspace.created_at, task.updated_at, *(agent.updated_at for agent in newest.rows)])
        return _Kept(workspace, used_at, await self._bytes(workspace))

    async def _bytes(self, workspace: Workspace) -> int:
        """0 where the runtime does not say: then it takes no part in the quota."""
        if self._settings.quota_bytes is None:
            return 0
        try:
            return (await self._workspaces.runtime(workspace.runtime).use(workspace.id)).bytes
        except KandevError:
            return 0

    def _now(self) -> datetime:
        """The earlier one of two clocks: one that jumps ahead while the host runs deletes nothing."""
        return min(now(), self._started + timedelta(seconds=time.monotonic() - self._started_s))
