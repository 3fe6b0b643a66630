"""Where a shell is opened: in a task's workspace, beside another shell, or in a scratch workspace of its own."""

from __future__ import annotations

from collections import Counter

import anyio
import msgspec

from kandev_host.errors import Conflict, NotFound, ValidationFailed
from kandev_host.interfaces import Put, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.models import Task, Workspace, new_id
from kandev_host.protocol.actions.shells import ShellOpen
from kandev_host.services.rows import need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.workspaces import WorkspaceService

PREPARE_S = 60.0


class Place(msgspec.Struct, frozen=True):
    """`task` None: a scratch workspace, in which `runtime` makes the folders."""

    workspace_id: str
    runtime: Runtime
    task: Task | None


class Places:
    """`scratch` counts the shells in each scratch workspace: the last one takes it with it."""

    def __init__(
        self, store: Store, journal: Journal, runs: LiveRuns, workspaces: WorkspaceService, default_runtime: str
    ) -> None:
        self._store = store
        self._journal = journal
        self._runs = runs
        self._workspaces = workspaces
        self._default = default_runtime
        self.scratch: Counter[str] = Counter()
        self._runtimes: dict[str, Runtime] = {}

    async def task_of(self, request: ShellOpen) -> Task | None:
        """The task that is meant; None: a scratch workspace. Raises `ValidationFailed`, `NotFound`."""
        if request.task_id is not None and request.workspace_id is not None:
            raise ValidationFailed("workspace_id", "Give either task_id or workspace_id")
        if request.task_id is not None:
            return await need(self._store, Task, request.task_id)
        if request.workspace_id is None or self.scratch[request.workspace_id]:
            return None
        task = await self._store.get(Task, request.workspace_id)  # a workspace has its task's id
        if task is None or await self._store.get(Workspace, task.id) is None:
            raise NotFound("workspace", request.workspace_id, fix="shell.list shows the workspaces of open shells")
        return task

    async def runtime_of(self, task: Task | None, request: ShellOpen) -> Runtime:
        """That of the place where the shell is to be. Raises what would keep it from being made there."""
        if task is None:
            return self.of_scratch(request.workspace_id, request.runtime).runtime
        self._runs.check_stays(task)
        return await self._chosen(task, request.runtime)

    async def _chosen(self, task: Task, runtime: str | None) -> Runtime:
        workspace = await self._store.get(Workspace, task.id)
        place = self._workspaces.runtime(runtime or (self._default if workspace is None else workspace.runtime))
        await self._workspaces.check(task, place.name)
        return place

    async def of_task(self, task: Task, runtime: str | None) -> Place:
        """Its workspace, made now if need be. Raises as `WorkspaceService.ensure`, and `Conflict` for the runtime."""
        self._runs.check_stays(task)
        place = await self._chosen(task, runtime)
        await self._workspaces.ensure(task, place.name)
        return Place(task.id, place, task)

    def of_scratch(self, workspace_id: str | None, runtime: str | None) -> Place:
        """That of another open shell, or a new one."""
        if workspace_id is None:
            return Place(new_id(), self._workspaces.runtime(runtime or self._default), None)
        there = self._runtimes[workspace_id]
        if runtime is not None and runtime != there.name:
            raise Conflict(f"This workspace belongs to the runtime {there.name!r}", state=there.name)
        return Place(workspace_id, there, None)

    def join(self, place: Place) -> None:
        """A shell is in it, from now until it leaves: others may join meanwhile."""
        if place.task is None:
            self._runtimes[place.workspace_id] = place.runtime
            self.scratch[place.workspace_id] += 1

    async def prepare(self, place: Place) -> None:
        """The folders of a new scratch workspace; its row comes first, so that a dead host's is found and removed."""
        if place.task is None and await self._store.get(Workspace, place.workspace_id) is None:
            await self._journal.record(Put(Workspace(id=place.workspace_id, runtime=place.runtime.name)))
            await place.runtime.prepare(place.workspace_id)

    async def leave(self, place: Place) -> None:
        """The last shell takes a scratch workspace with it; what cannot be removed now, the next start removes."""
        if place.task is not None:
            return
        self.scratch[place.workspace_id] -= 1
        if not self.scratch[place.workspace_id]:
            del self.scratch[place.workspace_id], self._runtimes[place.workspace_id]
            with anyio.move_on_after(PREPARE_S, shield=True):
                await self._workspaces.discard(place.workspace_id)
