"""Snapshots of workspaces: taken, listed, compared, gone back to. They lie where no agent reaches them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import anyio
from msgspec.structs import replace

from kandev_host.errors import Conflict, KandevError, NotFound, Unavailable
from kandev_host.events import event
from kandev_host.interfaces import Expect, Principal, Put, Remove, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, SkippedPath, Snapshot, SnapshotKind, Task, Turn, Workspace, new_id
from kandev_host.protocol.actions.agents import DiffReply, WorkspaceDiff
from kandev_host.protocol.actions.snapshots import (
    RestoreReply,
    SnapshotReply,
    SnapshotsReply,
    WorkspaceRestore,
    WorkspaceSnapshot,
    WorkspaceSnapshots,
)
from kandev_host.services.diffs import STATISTICS_LIMIT_BYTES, TIMEOUT_S, as_reply
from kandev_host.services.locks import Locks
from kandev_host.services.rows import every, need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.snapshot_jail import SnapshotJail
from kandev_host.services.snapshot_retention import superfluous
from kandev_host.services.supervision import OnTurnEnd
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.sessions.turns import TurnOutcome
from kandev_host.settings import SnapshotSettings

log = logging.getLogger(__name__)
BESIDE_WALK_S = 60.0
PACK_S = 300.0
REF = "refs/snapshots/"


class SnapshotService:
    """One thing at a time happens to the snapshots of a workspace. `close` ends what is under way."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        locks: Locks,
        runs: LiveRuns,
        workspaces: WorkspaceService,
        settings: SnapshotSettings,
        diff_limit_bytes: int,
    ) -> None:
        self._store = store
        self._journal = journal
        self._locks = locks
        self._runs = runs
        self._workspaces = workspaces
        self._settings = settings
        self._diff_limit_bytes = diff_limit_bytes
        self._open: set[anyio.CancelScope] = set()
        self._closed = False
        # Of a workspace's id: within it no shell works there, else it raises `Conflict`.
        self.quiet: Callable[[str], AbstractAsyncContextManager[None]] | None = None

    def close(self) -> None:
        """End what is under way: the host stops, and nobody waits for a snapshot any more."""
        self._closed = True
        for scope in self._open:
            scope.cancel()

    # --- by itself ----------------------------------------------------------------------------------------------------

    async def at_start(self, agent: AgentInstance) -> None:
        """Before an agent begins to work. Says in the log what keeps it from being taken, and never fails."""
        await self._by_itself(agent, "start", None)

    async def after_turn(self, agent: AgentInstance, turn: Turn) -> None:
        """At the end of a turn. As `at_start`."""
        await self._by_itself(agent, "turn", turn.id)

    def first(self, then: OnTurnEnd | None) -> OnTurnEnd:
        """`after_turn`, and then what else follows: whoever hears of that finds the snapshot."""

        async def follow(agent: AgentInstance, turn: Turn, outcome: TurnOutcome) -> None:
            await self.after_turn(agent, turn)
            if then is not None:
                await then(agent, turn, outcome)

        return follow

    async def _by_itself(self, agent: AgentInstance, kind: SnapshotKind, turn_id: str | None) -> None:
        """No row if nothing changed since the last one; a row with the error if it cannot be taken."""
        try:
            workspace = await self._store.get(Workspace, agent.task_id)
            if not self._settings.enabled or workspace is None or not self._confined(workspace):
                return
            row = Snapshot(task_id=agent.task_id, kind=kind, agent_id=agent.id, turn_id=turn_id, created_by=agent.id)
            async with self._working(workspace):
                try:
                    await self._take(workspace, row, unless_unchanged=True)
                except KandevError as error:
                    if self._closed:
                        return
                    log.warning("No snapshot of the workspace of task %s: %s", agent.task_id, error.message)
                    await self._record(replace(row, error=error.message))
        except KandevError as error:
            log.warning("No snapshot of the workspace of task %s: %s", agent.task_id, error.message)

    def _confined(self, workspace: Workspace) -> bool:
        runtime = self._workspaces.runtimes.get(workspace.runtime)
        return runtime is not None and runtime.confines

    # --- on request ---------------------------------------------------------------------------------------------------

    async def take(self, principal: Principal, request: WorkspaceSnapshot) -> SnapshotReply:
        """The workspace as it is. Raises `NotFound`, `Unavailable`, `TimedOut`."""
        workspace = await self._workspaces.get(request.task_id)
        row = Snapshot(task_id=workspace.id, kind="manual", label=request.label, created_by=principal.id)
        async with self._working(workspace):
            return SnapshotReply(snapshot=await self._take(workspace, row))

    async def list(self, principal: Principal, request: WorkspaceSnapshots) -> SnapshotsReply:
        """Newest first. Raises `NotFound` without task."""
        del principal
        await need(self._store, Task, request.task_id)
        where, order = [("task_id", "=", request.task_id)], ("-created_at", "-id")
        page = await self._store.find(Snapshot, where, order=order, limit=request.limit, cursor=request.cursor)  # type: ignore[arg-type]
        return SnapshotsReply(snapshots=page.rows, next_cursor=page.next_cursor)

    async def diff(self, principal: Principal, request: WorkspaceDiff) -> DiffReply:
        """Between any two moments. Raises `NotFound`, and `Conflict` for a snapshot that could not be taken."""
        if (request.from_, request.to) == ("base", "now"):
            return await self._workspaces.diff(principal, request)
        workspace = await self._workspaces.get(request.task_id)
        async with self._working(workspace):
            old = await self._tree(workspace, request.from_)
            new = await self._tree(workspace, request.to)
            limit = self._diff_limit_bytes
            result = await self._jail(workspace, TIMEOUT_S).raw(
                "compare", "compare", {"old": old, "new": new}, limit_bytes=limit + STATISTICS_LIMIT_BYTES
            )
        reply = as_reply(workspace, result, limit)
        return replace(reply, from_=request.from_, to=request.to)

    async def restore(self, principal: Principal, request: WorkspaceRestore) -> RestoreReply:
        """Make the workspace what the snapshot holds; what it was is kept in a snapshot made before.

        Raises `NotFound`, and `Conflict` while an agent or a shell works there or if it could not be undone, unless
        `force`.
        """
        async with self._locks.hold(f"task:{request.task_id}"):
            workspace = await self._workspaces.get(request.task_id)
            wanted = await self._snapshot(workspace, request.snapshot_id)
            live = [] if request.force else await self._runs.of_task(workspace.id)
            if live:
                told = {"state": live[0].status, "agent_id": live[0].id, "force": "restores while it works"}
                raise Conflict("An agent works in this workspace: stop it first", **told)
            quiet = nullcontext() if request.force or self.quiet is None else self.quiet(workspace.id)
            async with quiet, self._working(workspace):
                return await self._restore(workspace, wanted, principal, force=request.force)

    async def _restore(
        self, workspace: Workspace, wanted: Snapshot, principal: Principal, *, force: bool
    ) -> RestoreReply:
        row = Snapshot(task_id=workspace.id, kind="before_restore", created_by=principal.id)
        before = await self._take(workspace, replace(row, label=f"before {wanted.id}"), also_tree=wanted.tree)
        if before.cut is not None and not force:
            raise Conflict(
                "The workspace cannot be kept whole as it is, so the restore could not be undone",
                state=before.cut,
                force="restores all the same",
            )
        done = await self._jail(workspace, self._settings.walk_timeout_s + PACK_S).call(
            "restore",
            "restore",
            writes=True,
            now=before.tree,
            to=wanted.tree,
            keep=[skipped.path for skipped in wanted.skipped],
            delete=wanted.cut is None,
        )
        row = replace(row, id=new_id(), kind="restored", label=f"restored {wanted.id}")
        after = await self._take(workspace, row, also_tree=wanted.tree)
        return RestoreReply(
            before=before,
            after=after,
            written=done["written"],
            deleted=done["deleted"],
            skipped=[SkippedPath(**each) for each in done["skipped"]],
            skipped_files=done["skipped_files"],
            exact=after.tree == wanted.tree,
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _working(self, workspace: Workspace) -> AsyncIterator[None]:
        """Alone with this workspace, which is there. Raises `NotFound`, and `Unavailable` when the host stops."""
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            if self._closed:
                scope.cancel()
            try:
                async with self._workspaces.hold(workspace.id):
                    await self._workspaces.get(workspace.id)
                    yield
            finally:
                self._open.discard(scope)
        if scope.cancelled_caught:
            raise Unavailable("The host is stopping")

    def _jail(self, workspace: Workspace, timeout_s: float) -> SnapshotJail:
        return SnapshotJail(self._workspaces.runtime(workspace.runtime), workspace.id, timeout_s)

    def _bounds(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "budget_s": settings.walk_timeout_s,
            "max_files": settings.max_files,
            "file_bytes": settings.file_limit_bytes,
            "limit_bytes": settings.limit_bytes,
        }

    async def _take(
        self, workspace: Workspace, row: Snapshot, *, unless_unchanged: bool = False, also_tree: str | None = None
    ) -> Snapshot:
        """The snapshot, recorded; with `unless_unchanged` only if it is another than the last."""
        began = time.monotonic()
        last = await self._last(workspace.id) if unless_unchanged else None
        jail = self._jail(workspace, self._settings.walk_timeout_s + BESIDE_WALK_S)
        unless = None if last is None or last.cut is not None else last.tree
        found = await jail.call(
            "take", "take", ref=REF + row.id, unless_tree=unless, also_tree=also_tree, **self._bounds()
        )
        skipped = tuple(SkippedPath(**each) for each in found["skipped"])
        row = replace(
            row,
            tree=found["tree"],
            files=found["files"],
            bytes=found["bytes"],
            changed_files=found["changed"],
            branch=found["branch"],
            head=found["head"],
            cut=found["cut"],
            skipped=skipped,
            skipped_files=found["skipped_files"],
            duration_ms=round((time.monotonic() - began) * 1000),
        )
        if not found["unchanged"]:
            await self._record(row)
            await self._make_room(workspace, found["repository_bytes"])
        return row

    async def _record(self, row: Snapshot) -> None:
        task = await need(self._store, Task, row.task_id)
        payload = {"snapshot": row, "task_id": task.id}
        told = event("snapshot.created", payload, actor=row.created_by, task_id=task.id, board_id=task.board_id)
        await self._journal.record(Put(row), told, expect=(Expect(Task, task.id, NotFound("task", task.id)),))

    async def _make_room(self, workspace: Workspace, repository_bytes: int) -> None:
        """Forget the oldest when there are too many, or too much; the next one tries again if that fails."""
        rows = [row async for row in every(self._store, Snapshot, [("task_id", "=", workspace.id)])]
        full = repository_bytes > self._settings.limit_bytes
        gone = superfluous(rows, self._settings.kept, full=full)
        if not gone and not full:
            return
        if gone:
            await self._journal.record(*(Remove(Snapshot, row.id) for row in gone))
        kept = [row.id for row in rows if row not in gone]
        try:
            await self._jail(workspace, PACK_S).call("keep", "keep", ids=kept, pack=full)
        except KandevError as error:
            log.warning("Old snapshots of task %s still take their room: %s", workspace.id, error.message)

    async def _last(self, task_id: str) -> Snapshot | None:
        """The newest that was taken."""
        where, order = [("task_id", "=", task_id)], ("-created_at", "-id")
        page = await self._store.find(Snapshot, where, order=order, limit=20)  # type: ignore[arg-type]
        return next((row for row in page.rows if row.tree is not None), None)

    async def _snapshot(self, workspace: Workspace, id: str) -> Snapshot:
        """One of this workspace, with its files."""
        row = await self._store.get(Snapshot, id)
        if row is None or row.task_id != workspace.id:
            raise NotFound("snapshot", id, fix="workspace.snapshots lists those of the task")
        if row.tree is None:
            raise Conflict(f"This snapshot could not be taken: {row.error}", state="failed")
        return row

    async def _tree(self, workspace: Workspace, moment: str) -> str:
        """What `base`, `now` or a snapshot holds."""
        if moment == "now":
            jail = self._jail(workspace, self._settings.walk_timeout_s + BESIDE_WALK_S)
            return str((await jail.call("take", "take", ref=None, **self._bounds()))["tree"])
        if moment != "base":
            return str((await self._snapshot(workspace, moment)).tree)
        async for row in every(self._store, Snapshot, [("task_id", "=", workspace.id)]):
            if row.kind == "start" and row.tree is not None:
                return row.tree
        raise NotFound("snapshot", "base", fix="No snapshot was taken before the first agent began; name another")
