"""The columns of a board: dense positions, at most one for each task state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import UNSET
from msgspec.structs import asdict, replace

from kandev_host.errors import Conflict
from kandev_host.events import Event, event
from kandev_host.interfaces import Change, Principal, Put, Remove, Store
from kandev_host.journal import Journal
from kandev_host.models import Board, Column, Task, TaskState, now
from kandev_host.protocol.actions.boards import (
    ColumnCreate,
    ColumnDelete,
    ColumnDeleted,
    ColumnList,
    ColumnMove,
    ColumnRemoved,
    ColumnReply,
    ColumnsReply,
    ColumnUpdate,
    MovedTasks,
)
from kandev_host.services import placement
from kandev_host.services.locks import Locks
from kandev_host.services.rows import column_for, columns_of, every, fitting_column, need
from kandev_host.services.task_changes import moved_line
from kandev_host.services.tasks import task_event
from kandev_host.services.transitions import check_version

COLUMNS_MAX = 100
BY_POSITION = ("position", "id")


def column_event(action: str, column: Column, principal: Principal) -> Event:
    return event(action, {"column": column}, actor=principal.id, board_id=column.board_id)


class ColumnService:
    def __init__(self, store: Store, journal: Journal, locks: Locks) -> None:
        self._store = store
        self._journal = journal
        self._locks = locks

    async def list(self, principal: Principal, request: ColumnList) -> ColumnsReply:
        del principal
        await need(self._store, Board, request.board_id)
        page = await self._store.find(
            Column,
            [("board_id", "=", request.board_id)],
            order=BY_POSITION,
            limit=request.limit,
            cursor=request.cursor,
        )
        return ColumnsReply(columns=page.rows, next_cursor=page.next_cursor)

    async def create(self, principal: Principal, request: ColumnCreate) -> ColumnReply:
        """Raises `Conflict` if another column stands for the state, or the board has 100 columns."""
        async with self._locks.hold(f"board:{request.board_id}"):
            await need(self._store, Board, request.board_id)
            columns = await columns_of(self._store, request.board_id)
            if len(columns) >= COLUMNS_MAX:
                raise Conflict(f"A board has at most {COLUMNS_MAX} columns", state="full")
            _check_state(columns, request.state)
            at = len(columns) if request.position is None else min(request.position, len(columns))
            column = Column(
                board_id=request.board_id,
                name=request.name,
                position=at,
                wip_limit=request.wip_limit,
                state=request.state,
            )
            order = [*columns[:at], column, *columns[at:]]
            shifted, changes = _renumber(order, principal)
            told = column_event("column.created", column, principal)
            await self._journal.record(Put(column), told, *changes)
            return ColumnReply(column=shifted[at])

    async def update(self, principal: Principal, request: ColumnUpdate) -> ColumnReply:
        """The tasks in it keep their state when the column comes to stand for another."""
        column = await need(self._store, Column, request.column_id)
        async with self._locks.hold(f"board:{column.board_id}"):
            column = await need(self._store, Column, request.column_id)
            check_version("column", column, request.expected_version)
            wanted = {"name": request.name, "wip_limit": request.wip_limit, "state": request.state}
            changes = {key: value for key, value in wanted.items() if value is not UNSET}
            if all(asdict(column)[key] == value for key, value in changes.items()):
                return ColumnReply(column=column)
            column = replace(column, **changes, version=column.version + 1, updated_at=now())
            others = [other for other in await columns_of(self._store, column.board_id) if other.id != column.id]
            _check_state(others, column.state)
            await self._journal.record(Put(column), column_event("column.updated", column, principal))
            return ColumnReply(column=column)

    async def move(self, principal: Principal, request: ColumnMove) -> ColumnsReply:
        """All columns in their new order."""
        column = await need(self._store, Column, request.column_id)
        async with self._locks.hold(f"board:{column.board_id}"):
            column = await need(self._store, Column, request.column_id)
            check_version("column", column, request.expected_version)
            order = [other for other in await columns_of(self._store, column.board_id) if other.id != column.id]
            order.insert(min(request.position, len(order)), column)
            columns, changes = _renumber(order, principal)
            if changes:
                await self._journal.record(*changes)
            return ColumnsReply(columns=columns)

    async def delete(self, principal: Principal, request: ColumnDelete) -> ColumnDeleted:
        """Raises `Conflict` while tasks are in it, unless `force` moves them.

        Each goes to the column that fits its state, which it keeps; none fits, to none.
        """
        column = await need(self._store, Column, request.column_id)
        async with self._locks.hold(f"board:{column.board_id}"):
            column = await need(self._store, Column, request.column_id)
            check_version("column", column, request.expected_version)
            held = [task async for task in every(self._store, Task, [("column_id", "=", column.id)], BY_POSITION)]
            if held and not request.force:
                holds = f"The column still holds {len(held)} {'task' if len(held) == 1 else 'tasks'}"
                raise Conflict(holds, state="not empty", tasks=len(held), force="moves them elsewhere")
            order = [other for other in await columns_of(self._store, column.board_id) if other.id != column.id]
            _, changes = _renumber(order, principal)
            targets = [fitting_column(order, task.state) for task in held]
            moved = await self._moved(held, [_id(target) for target in targets], principal)
            told = column_event("column.deleted", column, principal)
            await self._journal.record(*moved, Remove(Column, column.id), told, *changes)
        where = [
            MovedTasks(column_id=_id(target), name=None if target is None else target.name, tasks=number)
            for target, number in Counter(targets).items()
        ]
        return ColumnDeleted(column_id=column.id, removed=ColumnRemoved(tasks_moved=len(held), moved_to=where))

    async def _moved(
        self, tasks: Sequence[Task], targets: Sequence[str | None], principal: Principal
    ) -> Sequence[Change]:
        """Each task at the end of its target, in their order, with its line of history and its event."""
        changes: list[Change] = []
        ends: dict[str | None, int] = {}
        for task, column_id in zip(tasks, targets, strict=True):
            if column_id not in ends:
                ends[column_id] = await placement.size(self._store, (task.board_id, column_id))
            at = ends[column_id]
            ends[column_id] += 1
            new = replace(task, column_id=column_id, position=at, version=task.version + 1, updated_at=now())
            changes += [
                Put(new),
                Put(moved_line(task, new, principal.id)),
                task_event("task.updated", new, principal.id),
            ]
        return changes


def _id(column: Column | None) -> str | None:
    return None if column is None else column.id


def _check_state(columns: Sequence[Column], state: TaskState | None) -> None:
    holder = None if state is None else column_for(columns, state)
    if holder is not None:
        raise Conflict(f"The column {holder.name!r} already stands for {state}", state=state, column_id=holder.id)


def _renumber(order: Sequence[Column], principal: Principal) -> tuple[list[Column], list[Change]]:
    """The columns numbered as they stand, and the changes of those whose number is new."""
    columns: list[Column] = []
    changes: list[Change] = []
    for position, column in enumerate(order):
        if column.position == position:
            columns.append(column)
            continue
        moved = replace(column, position=position, version=column.version + 1, updated_at=now())
        columns.append(moved)
        changes += [Put(moved), column_event("column.updated", moved, principal)]
    return columns, changes
