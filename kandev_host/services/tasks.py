"""Tasks: every change is one commit of row, audit line and event, under the lock of the task's board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from msgspec.structs import replace

from kandev_host.errors import NotFound, Unavailable, ValidationFailed
from kandev_host.events import Event, event
from kandev_host.interfaces import Change, Expect, Op, Principal, Put, Remove, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Board, Column, QueueEntry, Task, TaskEvent, TaskState, now
from kandev_host.protocol.actions.tasks import (
    TaskCreate,
    TaskDelete,
    TaskDeleted,
    TaskEvents,
    TaskEventsReply,
    TaskGet,
    TaskList,
    TaskMove,
    TaskRemoved,
    TaskReply,
    TasksReply,
    TaskStateChange,
    TaskUpdate,
)
from kandev_host.services import placement
from kandev_host.services.agent_types import AgentTypeService
from kandev_host.services.clones import find_source
from kandev_host.services.credentials.choice import Credentials
from kandev_host.services.dependencies import check_dependencies
from kandev_host.services.directories import Directories
from kandev_host.services.locks import Locks
from kandev_host.services.mcp import McpServers
from kandev_host.services.network import check_allow, widen
from kandev_host.services.orchestration.entries import queue_event
from kandev_host.services.rows import column_for, columns_of, find_fitting_column, need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.task_changes import changed_fields, check_fields, describe, line, moved_line, placed
from kandev_host.services.transitions import check_transition, check_version, with_state

if TYPE_CHECKING:
    from kandev_host.services.workspaces import WorkspaceService

ENDS_KEPT = 1024  # of boards
Where = list[tuple[str, Op, object]]


def task_event(action: str, task: Task, actor: str, **more: object) -> Event:
    return event(action, {"task": task, **more}, actor=actor, board_id=task.board_id, task_id=task.id)


class TaskService:
    def __init__(
        self,
        store: Store,
        journal: Journal,
        locks: Locks,
        runs: LiveRuns,
        workspaces: WorkspaceService,
        types: AgentTypeService,
        *,
        mcp: McpServers,
        directories: Directories,
        credentials: Credentials,
    ) -> None:
        self._store = store
        self._journal = journal
        self._locks = locks
        self._runs = runs
        self._workspaces = workspaces
        self._types = types
        self._mcp = mcp
        self._directories = directories
        self._credentials = credentials
        self._ends: dict[str, placement.End] = {}

    async def list(self, principal: Principal, request: TaskList) -> TasksReply:
        """Tasks that meet every filter, oldest first; those of one column by position."""
        del principal
        equal = ("board_id", "column_id", "state", "agent_type")
        values = [(name, getattr(request, name)) for name in equal]
        where: Where = [(name, "=", value) for name, value in values if value is not None]
        if request.priority_min is not None:
            where.append(("priority", ">=", request.priority_min))
        if request.query is not None:
            where.append(("text", "match", request.query))
        order = ("position", "id") if request.column_id is not None else ("created_at", "id")
        page = await self._store.find(Task, where, order=order, limit=request.limit, cursor=request.cursor)
        return TasksReply(tasks=page.rows, next_cursor=page.next_cursor)

    async def get(self, principal: Principal, request: TaskGet) -> TaskReply:
        del principal
        return TaskReply(task=await need(self._store, Task, request.task_id))

    async def create(self, principal: Principal, request: TaskCreate) -> TaskReply:
        """A task at the end of its column, in the state that the column stands for.

        Raises `NotFound` (board, column, blocked_by, agent type), `ValidationFailed`, `Conflict` if the column is full.
        """
        check_fields(request.repository_url, request.branch, request.metadata)
        draft = Task(
            board_id=request.board_id,
            title=request.title,
            description=request.description,
            priority=request.priority,
            agent_type=request.agent_type,
            repository_url=request.repository_url,
            branch=request.branch,
            metadata=request.metadata,
            created_by=principal.id,
        )
        await self._check_there(draft)
        # No lock on the dependencies: nothing waits yet for a task that is not there, so it can close no ring.
        async with self._locks.hold(f"board:{request.board_id}"):
            end = await self._end(request)
            blocked_by = await check_dependencies(self._store, draft.id, request.blocked_by)
            state: TaskState = (end.column.state if end.column is not None else None) or "TODO"
            task = replace(
                draft,
                blocked_by=blocked_by,
                **self._checked(principal, msgspec.structs.asdict(request)),
                column_id=end.column_id,
                position=end.size,
            )
            if state != "TODO":
                task = with_state(task, state, None, task.created_at)
            audit = line(task, "created", principal.id, new_state=task.state)
            told, reply = task_event("task.created", task, principal.id), TaskReply(task=task)
            await self._journal.record(Put(task), Put(audit), told, reply=reply)
            self._remember(request.board_id, end.taken())
        return reply

    def _checked(self, principal: Principal, given: dict[str, Any]) -> dict[str, Any]:
        """What is given of the lists that only some may name, or whose entries must be there."""
        if given.get("repository_url") is not None:
            self._credentials.check_repository(principal)
        checks: dict[str, Callable[[Sequence[str]], tuple[str, ...]]] = {
            "mcp_servers": self._mcp.check,
            "directories": self._directories.check,
            "credentials": partial(self._credentials.check, principal),
            "allow": partial(check_allow, principal, places=self._workspaces, types=self._types),
        }
        return {name: check(given[name]) for name, check in checks.items() if name in given}

    async def _end(self, request: TaskCreate) -> placement.End:
        """Read only if something else than a new task has changed the board since it was used last."""
        changes = self._journal.changes_of(request.board_id)
        end = self._ends.get(request.board_id)
        if end is None or (end.wanted, end.changes) != (request.column_id, changes):
            column = await self._column_for_new(request)
            held = await placement.size(self._store, (request.board_id, None if column is None else column.id))
            end = placement.End(request.column_id, changes, column, held)
        if end.column is not None:
            placement.check_limit(end.column, end.size)
        return end

    def _remember(self, board_id: str, end: placement.End) -> None:
        self._ends.pop(board_id, None)
        self._ends[board_id] = end
        if len(self._ends) > ENDS_KEPT:
            del self._ends[next(iter(self._ends))]

    async def _check_there(self, new: Task, old: Task | None = None) -> None:
        """Raise what a launch would for an agent type, or a local repository, that is not there.

        What a task has already is not asked about again: a plugin or a folder may have gone since.
        """
        if new.agent_type is not None and (old is None or new.agent_type != old.agent_type):
            self._types.need(new.agent_type)
        if old is None or new.repository_url != old.repository_url:
            await find_source(new)

    async def _column_for_new(self, request: TaskCreate) -> Column | None:
        if request.column_id is not None:
            await need(self._store, Board, request.board_id)
            columns = await columns_of(self._store, request.board_id)
            column: Column | None = await self._column(columns, request.column_id)
        else:
            column = await find_fitting_column(self._store, request.board_id)
            if column is None:  # else its board is there, too
                await need(self._store, Board, request.board_id)
        return column

    async def _column(self, columns: Sequence[Column], column_id: str) -> Column:
        for column in columns:
            if column.id == column_id:
                return column
        await need(self._store, Column, column_id)
        raise ValidationFailed("column_id", "The column belongs to another board")

    async def update(self, principal: Principal, request: TaskUpdate) -> TaskReply:
        """Change the fields that are there; nothing is written when none differs.

        Raises `Conflict` for an old version, a ring of blockers, and a new source for a workspace already made.
        """
        changes = changed_fields(request)
        check_fields(changes.get("repository_url"), changes.get("branch"), changes.get("metadata"))
        task = await need(self._store, Task, request.task_id)
        changes |= self._checked(principal, changes)
        await self._check_there(replace(task, **changes), task)
        # Two tasks that come to wait for each other at once would close a ring.
        ring = ["dependencies"] if "blocked_by" in changes else []
        async with self._locks.hold(*ring, f"board:{task.board_id}"):
            task = await need(self._store, Task, request.task_id)
            check_version("task", task, request.expected_version)
            if "blocked_by" in changes:
                changes["blocked_by"] = await check_dependencies(
                    self._store, task.id, changes["blocked_by"], task.blocked_by
                )
            changed = describe(task, changes)
            if not changed:
                return TaskReply(task=task)
            if changed.keys() & {"repository_url", "branch"}:
                await self._workspaces.check_unused(task.id)
            task = replace(task, **changes, version=task.version + 1, updated_at=now())
            audit = line(task, "updated", principal.id, metadata={"changed": changed})
            await self._write(task, audit, task_event("task.updated", task, principal.id))
            if "allow" in changed:
                widen(task, self._workspaces.runtimes)
            return TaskReply(task=task)

    async def delete(self, principal: Principal, request: TaskDelete) -> TaskDeleted:
        """With its workspace. Raises `Conflict` with a live agent or open shells, unless `force` ends them first.

        So does a workspace with work that is nowhere else, which `force` throws away. One whose runtime is not there
        keeps its task, too (`Unavailable`); with `force` it stays behind.
        """
        task = await need(self._store, Task, request.task_id)
        check_version("task", task, request.expected_version)
        with self._runs.closing(task.id):
            async with self._locks.hold(f"board:{task.board_id}"):
                live = await self._runs.of_task(task.id)
            await self._runs.end(live, "task", force=request.force)
            await self._runs.close_shells([task.id], "task", force=request.force)
            if not request.force:
                await self._check_workspace(task)
            return await self._delete(principal, request, task, live)

    async def _delete(
        self, principal: Principal, request: TaskDelete, task: Task, live: Sequence[AgentInstance]
    ) -> TaskDeleted:
        async with self._locks.hold(f"task:{task.id}", f"board:{task.board_id}"):
            task = await need(self._store, Task, request.task_id)
            # The end of an agent has changed its task.
            check_version("task", task, None if live else request.expected_version)
            await self._runs.end(await self._runs.of_task(task.id), "task", force=False)
            await self._runs.close_shells([task.id], "task", force=request.force)
            agents = await self._store.count(AgentInstance, [("task_id", "=", task.id)])
            told = [task_event("task.deleted", task, principal.id)]
            if await self._store.get(QueueEntry, task.id) is not None:
                told.insert(0, queue_event(task.id, task.board_id, None))
            await self._journal.record(Remove(Task, task.id), placement.removal(task), *told)
            # Behind the commit: a store that fails deletes nothing. What is left of a folder, the next start removes.
            gone, left = await self._workspaces.discard(task.id)
            removed = TaskRemoved(agents=agents, stopped=len(live), workspace=gone, workspace_left=left)
        return TaskDeleted(task_id=task.id, removed=removed)

    async def _check_workspace(self, task: Task) -> None:
        try:
            await self._workspaces.check_removable(task.id)
        except Unavailable as error:
            error.details["force"] = "leaves its workspace behind"
            raise
        await self._workspaces.check_saved(task.id)

    async def events(self, principal: Principal, request: TaskEvents) -> TaskEventsReply:
        """Who changed what and when, oldest first."""
        del principal
        await need(self._store, Task, request.task_id)
        page = await self._store.find(
            TaskEvent,
            [("task_id", "=", request.task_id)],
            order=("version", "created_at", "id"),
            limit=request.limit,
            cursor=request.cursor,
        )
        return TaskEventsReply(events=page.rows, next_cursor=page.next_cursor)

    async def state(self, principal: Principal, request: TaskStateChange) -> TaskReply:
        """Raises `Conflict` for a transition that is not allowed, or into a full column; nothing is written then."""
        task = await self.transition(
            request.task_id,
            request.state,
            actor=principal.id,
            reason=request.reason,
            expected_version=request.expected_version,
            placing=True,
        )
        return TaskReply(task=task)

    async def move(self, principal: Principal, request: TaskMove) -> TaskReply:
        """To a column and position. Another column that stands for a state changes the state, if that is allowed."""
        task = await need(self._store, Task, request.task_id)
        async with self._locks.hold(f"board:{task.board_id}"):
            task = await need(self._store, Task, request.task_id)
            check_version("task", task, request.expected_version)
            column = await self._column(await columns_of(self._store, task.board_id), request.column_id)
            elsewhere = column.id != task.column_id
            state = column.state if elsewhere and column.state != task.state else None
            if state is not None:
                check_transition(task, state)
            if elsewhere:
                await placement.check_room(self._store, column)
            moved, shifted = await placement.move(self._store, task, column.id, request.position)
            if moved == task:
                return TaskReply(task=task)
            return TaskReply(task=await self._record_move(task, moved, state, shifted, principal.id))

    async def _record_move(
        self, old: Task, moved: Task, state: TaskState | None, shifted: Sequence[Change], actor: str
    ) -> Task:
        at = now()
        new = moved if state is None else with_state(moved, state, None, at)
        new = replace(new, version=old.version + 1, updated_at=at)
        if state is None:
            told = task_event("task.updated", new, actor)
        else:
            told = task_event("task.state_changed", new, actor, old_state=old.state, new_state=state)
        await self._write(new, moved_line(old, new, actor, state), told, *shifted)
        return new

    async def transition(
        self,
        task_id: str,
        state: TaskState,
        *,
        actor: str,
        reason: str | None = None,
        expected_version: int | None = None,
        by_prompt: bool = False,
        placing: bool = False,
        only_from: Sequence[TaskState] = (),
        assigned_agent_id: str | None = None,
        also: Sequence[Change] = (),
        expect: Sequence[Expect] = (),
    ) -> Task:
        """Change a task's state, and in the same commit what goes `also` with it; to its column's end.

        `only_from` makes it do nothing (not even `also`) in any other state: a person's decision stands. `placing` says
        that a person puts it into the column, whom its limit binds. With `assigned_agent_id` a task that is in this
        state already is taken over. Raises `Conflict`, and what `expect` says where one of these preconditions fails.
        """
        task = await need(self._store, Task, task_id)
        async with self._locks.hold(f"board:{task.board_id}"):
            task = await need(self._store, Task, task_id)
            if only_from and task.state not in only_from:
                return task
            check_version("task", task, expected_version)
            if assigned_agent_id is not None:
                self._runs.check_stays(task)
            new = replace(task, assigned_agent_id=assigned_agent_id or task.assigned_agent_id)
            shifted: Sequence[Change] = ()
            if assigned_agent_id is None or task.state != state:
                check_transition(task, state, by_prompt=by_prompt)
                new, shifted = await self._into_column(with_state(new, state, reason, now()), state, placing=placing)
            new = replace(new, version=task.version + 1, updated_at=now())
            more = {"assigned_agent_id": assigned_agent_id, "reason": reason}
            audit = line(
                new,
                "state_changed" if new.state != task.state else "agent_assigned",
                actor,
                old_state=task.state,
                new_state=new.state,
                metadata={**placed(task, new), **{name: value for name, value in more.items() if value is not None}},
            )
            if new.state == task.state:
                told = task_event("task.updated", new, actor)
            else:
                told = task_event("task.state_changed", new, actor, old_state=task.state, new_state=state)
            await self._write(new, audit, told, *shifted, *also, expect=expect)
            return new

    async def _into_column(self, task: Task, state: TaskState, *, placing: bool) -> tuple[Task, Sequence[Change]]:
        columns = await columns_of(self._store, task.board_id)
        column = column_for(columns, state)
        if column is None or column.id == task.column_id:
            return task, ()
        if placing:
            await placement.check_room(self._store, column)
        return await placement.move(self._store, task, column.id, None)

    async def _write(
        self, task: Task, audit: TaskEvent, told: Event, *more: Change, expect: Sequence[Expect] = ()
    ) -> None:
        gone = Expect(Task, task.id, NotFound("task", task.id))
        with anyio.CancelScope(shield=True):  # the locks are held until it is known whether it was written
            await self._journal.record(*more, Put(task), Put(audit), told, expect=[gone, *expect])
