"""A task's workspace: made once, compared with its base, removed with the task, as is what was captured."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
from msgspec.structs import replace

from kandev_host.errors import Conflict, KandevError, NotFound, TimedOut, Unavailable
from kandev_host.events import Event, event
from kandev_host.interfaces import Principal, Put, Remove, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.models import Snapshot, Task, Workspace, now
from kandev_host.protocol.actions.agents import DiffReply, WorkspaceDiff
from kandev_host.services.availability import not_open
from kandev_host.services.clones import Source, find_source, make_workspace
from kandev_host.services.credentials.choice import Credentials
from kandev_host.services.credentials.grants import takes_login
from kandev_host.services.diffs import workspace_diff
from kandev_host.services.forwarding.brokerage import Brokered
from kandev_host.services.git import Git
from kandev_host.services.locks import Held, Locks
from kandev_host.services.rows import every
from kandev_host.services.setups import Setups
from kandev_host.services.unsaved import Unsaved, find_unsaved
from kandev_host.sessions.capture import Captures
from kandev_host.settings import WorkspaceSettings

log = logging.getLogger(__name__)
CLEANUP_S = 60.0


class Discarded(NamedTuple):
    """Was there a workspace, and is it gone? `left` says why it is still there, and what to do."""

    removed: bool
    left: str | None


class WorkspaceService:
    """Places for tasks, by the task's id, in the runtime they were made for.

    `on_new` is awaited before a new one is made, and may refuse it; `before_removal` ends what the host itself runs in
    one that goes.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        runtimes: Mapping[str, Runtime],
        settings: WorkspaceSettings,
        captures: Captures | None = None,
        setups: Setups | None = None,
        credentials: Credentials | None = None,
        installed: Collection[str] = (),
    ) -> None:
        self._installed = installed
        self._store = store
        self._journal = journal
        self.runtimes = runtimes
        self._settings = settings
        self._captures = captures
        self._setups = setups or Setups({}, journal)
        self._credentials = credentials
        self.on_new: Callable[[], Awaitable[None]] | None = None
        self.before_removal: Callable[[str], Awaitable[None]] | None = None
        self._locks = Locks()

    def runtime(self, name: str) -> Runtime:
        """The runtime of this name. Raises `Unavailable` for one that the host did not open."""
        found = self.runtimes.get(name)
        if found is None:
            message, fix = not_open(name, self.runtimes, self._installed)
            raise Unavailable(message, reason=f"no runtime {name!r}", fix=fix)
        return found

    def hold(self, task_id: str) -> Held:
        """Within it, the workspace is neither made nor removed."""
        return self._locks.hold(task_id)

    async def check(self, task: Task, runtime: str) -> None:
        """Raise what stands in the way before anything is written: `ValidationFailed` or `Conflict`."""
        workspace = await self.find(task.id)
        if workspace is None:
            await find_source(task)
        elif workspace.runtime != runtime:
            raise Conflict(
                f"The workspace of this task belongs to the runtime {workspace.runtime!r}", state=workspace.runtime
            )

    async def ensure(self, task: Task, runtime: str) -> Workspace:
        """The task's workspace, made if it is not there yet; nothing half-made stays behind, also when cancelled.

        Raises `ValidationFailed`, `GitFailed`, `SetupFailed`, `TimedOut`, `Unavailable`.
        """
        async with self._locks.hold(task.id):
            place = self.runtime(runtime)
            workspace = await self.find(task.id)
            if workspace is not None:
                await place.prepare(task.id)
                return workspace
            source = await find_source(task)
            if self.on_new is not None:
                await self.on_new()
            return await self._make(place, task, source)

    async def _make(self, place: Runtime, task: Task, source: Source | None) -> Workspace:
        await place.remove(task.id)
        try:
            await place.prepare(task.id)
            found = self._setups.find(source)
            async with self._logged_in(task, source) as brokered:
                workspace = await make_workspace(
                    place,
                    task,
                    source,
                    self._settings.git_timeout_s,
                    allow=(found[1].allow or ()) if found else (),
                    brokered=brokered,
                )
            workspace = replace(workspace, setup=await self._setups.prepare(place, task.id, source))
            payload = {"workspace": workspace, "task_id": task.id, "deleted": False}
            told = event("workspace.updated", payload, task_id=task.id, board_id=task.board_id)
            await self._journal.record(Put(workspace), told)
        except BaseException:
            with anyio.move_on_after(CLEANUP_S, shield=True):
                await place.remove(task.id)
            raise
        return workspace

    @asynccontextmanager
    async def _logged_in(self, task: Task, source: Source | None) -> AsyncIterator[Brokered | None]:
        """What fetches its repository for its clone, where the settings let that log in."""
        found, credentials = self._setups.find(source), self._credentials
        location = None if source is None or source.local is not None else source.repository.location
        logs_in = found is not None and found[1].credentials is True
        # http:// and git:// would show a log-in to the network.
        if credentials is None or found is None or location is None or not (logs_in and takes_login(location)):
            yield None
            return
        async with credentials.cloning(found[0], location, task) as brokered:
            yield brokered

    async def diff(self, principal: Principal, request: WorkspaceDiff) -> DiffReply:
        """What changed since the base, also while an agent works. Raises `NotFound` without task or workspace."""
        del principal
        workspace = await self.get(request.task_id)
        git = Git(self.runtime(workspace.runtime), workspace.id, self._settings.git_timeout_s)
        async with self._locks.hold(f"diff:{workspace.id}"):  # a big one costs a processor: never two of the same
            return await workspace_diff(git, workspace, self._settings.diff_limit_bytes)

    async def get(self, task_id: str) -> Workspace:
        """Raises `NotFound` without task, or without workspace (any more)."""
        workspace = await self.find(task_id)
        if workspace is None:
            if await self._store.get(Task, task_id) is None:
                raise NotFound("task", task_id)
            raise NotFound("workspace", task_id, fix="Launch an agent for the task first")
        return workspace

    async def find(self, task_id: str) -> Workspace | None:
        """Its row; None also of one that is being deleted."""
        workspace = await self._store.get(Workspace, task_id)
        return workspace if workspace is None or workspace.removing_at is None else None

    async def check_unused(self, task_id: str) -> None:
        """Raise `Conflict` if the workspace is made already: another repository or branch would not reach it."""
        if await self.find(task_id) is not None:
            raise Conflict("The workspace of this task is already made", state="workspace")

    async def check_removable(self, task_id: str) -> None:
        """Raise `Unavailable` if the runtime that holds the folders is not there."""
        workspace = await self._store.get(Workspace, task_id)
        if workspace is not None:
            self.runtime(workspace.runtime)

    async def check_saved(self, task_id: str) -> None:
        """Raise `Conflict` if its workspace holds work that is nowhere else, or if that cannot be known."""
        workspace = await self.find(task_id)
        if workspace is None:
            return
        try:
            unsaved = await self.unsaved(workspace)
        except (Unavailable, TimedOut) as error:
            raise Conflict(
                f"Whether the workspace holds work that is nowhere else cannot be known: {error.message}",
                state="unknown",
                force="deletes it all the same",
            ) from error
        if unsaved:
            raise Conflict(
                f"The workspace has {unsaved}",
                state="unsaved",
                files=unsaved.files,
                commits=unsaved.commits,
                names=list(unsaved.names),
                force="throws that away",
            )

    async def unsaved(self, workspace: Workspace) -> Unsaved:
        """Work that is nowhere else. Raises `Unavailable` and `TimedOut` where that cannot be known."""
        git = Git(self.runtime(workspace.runtime), workspace.id, self._settings.git_timeout_s)
        async with self._locks.hold(f"diff:{workspace.id}"):
            return await find_unsaved(git, workspace)

    async def remove(self, task_id: str, *told: Event) -> bool:
        """Delete the folders, the row and those of its snapshots, and record with it what is `told`.

        False if there is none; raises when the runtime cannot. A row says first that it goes: a host that dies half-way
        leaves no workspace that looks whole.
        """
        async with self._locks.hold(task_id):
            workspace = await self._store.get(Workspace, task_id)
            if workspace is None:
                return False
            runtime = self.runtime(workspace.runtime)
            if workspace.removing_at is None:
                await self._journal.record(Put(replace(workspace, removing_at=now())))
            if self.before_removal is not None:
                await self.before_removal(task_id)
            await runtime.remove(task_id)
            # The snapshots lay in the place, and went with it.
            lost = [Remove(Snapshot, row.id) async for row in every(self._store, Snapshot, [("task_id", "=", task_id)])]
            await self._journal.record(Remove(Workspace, task_id), *lost, *told)
            return True

    async def with_captures(self) -> list[str]:
        """The tasks of whose agents something was captured."""
        return [] if self._captures is None else await self._captures.tasks()

    async def discard(self, task_id: str) -> Discarded:
        """`remove`, for clean-up behind the commit that deleted the task: it must not fail the caller.

        What was captured of its agents goes as well.
        """
        if self._captures is not None:
            await self._captures.discard(task_id)
        return await self.try_to_remove(task_id)

    async def try_to_remove(self, task_id: str) -> Discarded:
        """`remove`, saying why where it cannot."""
        try:
            return Discarded(await self.remove(task_id), None)
        except KandevError as error:
            fix = error.details.get("fix")
            log.warning("The workspace of task %s stays: %s", task_id, error.message)
            return Discarded(False, f"{error.message}; {fix}" if fix else error.message)
