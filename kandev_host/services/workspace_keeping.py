"""When workspaces go: because somebody deletes one. Never one that is needed, nor work that is nowhere else."""

from __future__ import annotations

from kandev_host.errors import Conflict
from kandev_host.events import event
from kandev_host.interfaces import Principal, Store
from kandev_host.models import Task, Workspace
from kandev_host.protocol.actions.workspaces import HolderInfo, WorkspaceDelete, WorkspaceDeleted
from kandev_host.services.holders import Holders
from kandev_host.services.locks import Locks
from kandev_host.services.rows import need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.workspaces import WorkspaceService


class WorkspaceKeeping:
    """`locks` and `runs` are those of the agents: while one is being started, no workspace goes."""

    def __init__(
        self, store: Store, workspaces: WorkspaceService, *, holders: Holders, locks: Locks, runs: LiveRuns
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._holders = holders
        self._locks = locks
        self._runs = runs

    async def delete(self, principal: Principal, request: WorkspaceDelete) -> WorkspaceDeleted:
        """Without a workspace nothing happens; a later agent of the task gets a new one.

        Raises `Conflict` while it is needed or holds work that is nowhere else, unless `force` ends what needs it.
        """
        task = await need(self._store, Task, request.task_id)
        with self._runs.closing(task.id):
            held = await self._free(task.id, force=request.force)
            if not request.force:
                await self._workspaces.check_saved(task.id)
            deleted = await self._remove(task, principal.id, force=request.force)
        return WorkspaceDeleted(task_id=task.id, deleted=deleted, ended=held if deleted else [])

    async def _free(self, task_id: str, *, force: bool) -> list[HolderInfo]:
        held = await self._holders.of(task_id)
        if held and not force:
            raise _needed(held)
        await self._holders.end(task_id, held)
        return held

    async def _remove(self, task: Task, actor: str, *, force: bool) -> bool:
        async with self._locks.hold(f"task:{task.id}"):
            held = [holder for holder in await self._holders.of(task.id) if holder.kind != "queue" or not force]
            if held:
                raise _needed(held)
            workspace = await self._store.get(Workspace, task.id)
            if workspace is None:
                return False
            payload = {"workspace": workspace, "task_id": task.id, "deleted": True}
            told = event("workspace.updated", payload, actor=actor, task_id=task.id, board_id=task.board_id)
            return await self._workspaces.remove(task.id, told)


def _needed(held: list[HolderInfo]) -> Conflict:
    kinds = ", ".join(sorted({holder.kind for holder in held}))
    return Conflict(
        f"The workspace is needed ({kinds})",
        state="held",
        held_by=[{"kind": holder.kind, "id": holder.id} for holder in held],
        force="ends what needs it",
    )
