"""Small reads that the services share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from kandev_host.errors import NotFound
from kandev_host.interfaces import Op, Page, Store
from kandev_host.models import (
    AgentInstance,
    Board,
    Column,
    Elicitation,
    PermissionRequest,
    PermissionRule,
    Row,
    Session,
    ShellRow,
    Snapshot,
    Task,
    TaskState,
    Turn,
)
from kandev_host.protocol.actions.agents import PermissionList
from kandev_host.protocol.actions.elicitations import ElicitationList

R = TypeVar("R", bound=Row)
PAGE = 500

KINDS: dict[type[Row], str] = {
    Board: "board", Column: "column", Task: "task", AgentInstance: "agent", PermissionRequest: "permission",
    PermissionRule: "permission_rule", Elicitation: "elicitation", Session: "session",
    ShellRow: "shell", Snapshot: "snapshot", Turn: "prompt",
}  # fmt: skip


async def need(store: Store, kind: type[R], id: str) -> R:
    """The row, or `NotFound` with its kind in the protocol's words."""
    row = await store.get(kind, id)
    if row is None:
        raise NotFound(KINDS[kind], id)
    return row


async def asked_for(store: Store, kind: type[R], request: ElicitationList | PermissionList) -> Page[R]:
    """What agents asked for, as the request narrows it. Raises `NotFound` for an unknown agent or task."""
    if request.agent_id is not None:
        await need(store, AgentInstance, request.agent_id)
    if request.task_id is not None:
        await need(store, Task, request.task_id)
    wanted = (("agent_id", request.agent_id), ("task_id", request.task_id), ("state", request.state))
    where: list[tuple[str, Op, Any]] = [(name, "=", value) for name, value in wanted if value is not None]
    return await store.find(kind, where, limit=request.limit, cursor=request.cursor)


async def every(
    store: Store, kind: type[R], where: Sequence[tuple[str, Op, Any]], order: Sequence[str] = ("created_at", "id")
) -> AsyncIterator[R]:
    """All rows that meet the conditions, page by page."""
    cursor: str | None = None
    while True:
        page = await store.find(kind, where, order=order, limit=PAGE, cursor=cursor)
        for row in page.rows:
            yield row
        cursor = page.next_cursor
        if cursor is None:
            return


async def columns_of(store: Store, board_id: str) -> list[Column]:
    """A board's columns, by position."""
    return [row async for row in every(store, Column, [("board_id", "=", board_id)], order=("position", "id"))]


def column_for(columns: Sequence[Column], state: TaskState) -> Column | None:
    """The column that stands for a state."""
    return next((column for column in columns if column.state == state), None)


def fitting_column(columns: Sequence[Column], state: TaskState = "TODO") -> Column | None:
    """Where a task goes that names no column: the one for its state, else the first that stands for no state."""
    return column_for(columns, state) or next((column for column in columns if column.state is None), None)


async def find_fitting_column(store: Store, board_id: str, state: TaskState = "TODO") -> Column | None:
    """`fitting_column` of this board, by one read of one row."""
    where: list[tuple[str, Op, Any]] = [("board_id", "=", board_id), ("state", "in", (state, None))]
    page = await store.find(Column, where, order=("-state", "position", "id"), limit=1)
    return page.rows[0] if page.rows else None
