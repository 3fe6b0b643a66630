"""A task's workspace: made once, compared with its base, removed with the task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

import anyio

from kandev_host.errors import Conflict, KandevError, NotFound, Unavailable
from kandev_host.events import event
from kandev_host.interfaces import Principal, Put, Remove, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.models import Task, Workspace
from kandev_host.protocol.actions.agents import DiffReply, WorkspaceDiff
from kandev_host.services.clones import Source, find_source, make_workspace
from kandev_host.services.diffs import workspace_diff
from kandev_host.services.git import Git
from kandev_host.services.locks import Locks
from kandev_host.settings import WorkspaceSettings

log = logging.getLogger(__name__)
CLEANUP_S = 60.0


class Discarded(NamedTuple):
    """Was there a workspace, and is it gone? `left` says why it is still there, and what to do."""

    removed: bool
    left: str | None


class WorkspaceService:
    """Places for tasks, by the task's id, in the runtime they were made for."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        runtimes: Mapping[str, Runtime],
        settings: WorkspaceSettings,
    ) -> None:
        self._store = store
        self._journal = journal
        self.runtimes = runtimes
        self._settings = settings
        self._locks = Locks()

    def runtime(self, name: str) -> Runtime:
        """The runtime of this name. Raises `Unavailable` for one that the host did not open."""
        found = self.runtimes.get(name)
        if found is None:
            raise Unavailable(
                f"The runtime {name!r} is not running",
                reason=f"no runtime {name!r}",
                fix=f'Set [use] runtime = "{name}" in the settings, or choose one of {sorted(self.runtimes)}',
                known=sorted(self.runtimes),
            )
        return found

    async def check(self, task: Task, runtime: str) -> None:
        """Raise what stands in the way before anything is written: `ValidationFailed` or `Conflict`."""
        workspace = await self._store.get(Workspace, task.id)
        if workspace is None:
            await find_source(task)
        elif workspace.runtime != runtime:
            raise Conflict(
                f"The workspace of this task belongs to the runtime {workspace.runtime!r}", state=workspace.runtime
            )

    async def ensure(self, task: Task, runtime: str) -> Workspace:
        """The task's workspace, made if it is not there yet; nothing half-made stays behind, also when cancelled.

        Raises `ValidationFailed`, `GitFailed`, `TimedOut`, `Unavailable`.
        """
        async with self._locks.hold(task.id):
            place = self.runtime(runtime)
            workspace = await self._store.get(Workspace, task.id)
            if workspace is not None:
                await place.prepare(task.id)
                return workspace
            source = await find_source(task)
            return await self._make(place, task, source)

    async def _make(self, place: Runtime, task: Task, source: Source | None) -> Workspace:
        await place.remove(task.id)
        try:
            await place.prepare(task.id)
            workspace = await make_workspace(place, task, source, self._settings.git_timeout_s)
            payload = {"workspace": workspace, "task_id": task.id}
            told = event("workspace.updated", payload, task_id=task.id, board_id=task.board_id)
            await self._journal.record(Put(workspace), told)
        except BaseException:
            with anyio.move_on_after(CLEANUP_S, shield=True):
                await place.remove(task.id)
            raise
        return workspace

    async def diff(self, principal: Principal, request: WorkspaceDiff) -> DiffReply:
        """What changed since the base, also while an agent works. Raises `NotFound` without task or workspace."""
        del principal
        workspace = await self.get(request.task_id)
        git = Git(self.runtime(workspace.runtime), workspace.id, self._settings.git_timeout_s)
        async with self._locks.hold(f"diff:{workspace.id}"):  # a big one costs a processor: never two of the same
            return await workspace_diff(git, workspace, self._settings.diff_limit_bytes)

    async def get(self, task_id: str) -> Workspace:
        workspace = await self._store.get(Workspace, task_id)
        if workspace is None:
            if await self._store.get(Task, task_id) is None:
                raise NotFound("task", task_id)
            raise NotFound("workspace", task_id, fix="Launch an agent for the task first")
        return workspace

    async def check_unused(self, task_id: str) -> None:
        """Raise `Conflict` if the workspace is made already: another repository or branch would not reach it."""
        if await self._store.get(Workspace, task_id) is not None:
            raise Conflict("The workspace of this task is already made", state="workspace")

    async def check_removable(self, task_id: str) -> None:
        """Raise `Unavailable` if the runtime that holds the folders is not there."""
        workspace = await self._store.get(Workspace, task_id)
        if workspace is not None:
            self.runtime(workspace.runtime)

    async def remove(self, task_id: str) -> bool:
        """Delete the folders and the row. False if there is none; raises when the runtime cannot."""
        async with self._locks.hold(task_id):
            workspace = await self._store.get(Workspace, task_id)
            if workspace is None:
                return False
            await self.runtime(workspace.runtime).remove(task_id)
            await self._journal.record(Remove(Workspace, task_id))
            return True

    async def discard(self, task_id: str) -> Discarded:
        """`remove`, for clean-up behind the commit that deleted the task: it must not fail the caller."""
        try:
            return Discarded(await self.remove(task_id), None)
        except KandevError as error:
            fix = error.details.get("fix")
            log.warning("The workspace of task %s stays: %s", task_id, error.message)
            return Discarded(False, f"{error.message}; {fix}" if fix else error.message)
