"""Dense positions: the tasks of a column are numbered from 0 without gaps.

Whoever takes a task out closes the gap, whoever puts one in shifts those behind it; both under the board's lock and
in one commit. A shift is no edit: `version` stays, and no event tells it, since the moved task's own event says it all.
"""

from __future__ import annotations

from msgspec.structs import replace

from kandev_host.errors import Conflict
from kandev_host.interfaces import Op, Put, Store
from kandev_host.models import Column, Task
from kandev_host.services.rows import every

Place = tuple[str, str | None]
"""A board's id and a column's id; None is the board's place for tasks without a column."""


async def size(store: Store, place: Place) -> int:
    return await store.count(Task, _in(place))


async def check_room(store: Store, column: Column) -> None:
    """Raise `Conflict` when the column is full; it binds people who place tasks, not what happens to a task."""
    if column.wip_limit is not None and await size(store, (column.board_id, column.id)) >= column.wip_limit:
        raise Conflict(
            f"The column {column.name!r} holds no more than {column.wip_limit} tasks",
            state="full",
            wip_limit=column.wip_limit,
        )


async def removal(store: Store, task: Task) -> list[Put]:
    """The rows that close the gap which `task` leaves."""
    behind = [*_in((task.board_id, task.column_id)), ("position", ">", task.position)]
    rows = [row async for row in every(store, Task, behind, order=("position", "id"))]
    return [Put(replace(row, position=row.position - 1)) for row in rows if row.id != task.id]


async def move(store: Store, task: Task, column_id: str | None, position: int | None) -> tuple[Task, list[Put]]:
    """The task at its new place (None: the end), and the others that make room or close up."""
    target = (task.board_id, column_id)
    count = await size(store, target)
    if column_id != task.column_id:
        at = count if position is None else min(position, count)
        shifted = await removal(store, task)
        behind = [*_in(target), ("position", ">=", at)]
        rows = [row async for row in every(store, Task, behind, order=("position", "id"))]
        shifted += [Put(replace(row, position=row.position + 1)) for row in rows]
        return replace(task, column_id=column_id, position=at), shifted
    last = count - 1
    at = last if position is None else min(position, last)
    low, high, step = (task.position, at, -1) if at > task.position else (at, task.position, 1)
    between = [*_in(target), ("position", ">=", low), ("position", "<=", high)]
    rows = [row async for row in every(store, Task, between, order=("position", "id"))]
    shifted = [Put(replace(row, position=row.position + step)) for row in rows if row.id != task.id]
    return replace(task, position=at), shifted


def _in(place: Place) -> list[tuple[str, Op, object]]:
    board_id, column_id = place
    return [("board_id", "=", board_id), ("column_id", "=", column_id)]
