"""Whose a board is, and on which board everything else is. Looked up anew each time: a board may change hands."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kandev_host.errors import Forbidden, NotFound
from kandev_host.interfaces import ALL_BOARDS, Principal, Store
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
    Turn,
)
from kandev_host.services.locks import Locks
from kandev_host.services.rows import KINDS

# Fields of requests that name something of a board, or something that has a task.
FIELDS: Mapping[str, type[Row]] = {
    "board_id": Board, "column_id": Column, "task_id": Task, "agent_id": AgentInstance, "prompt_id": Turn,
    "permission_id": PermissionRequest, "rule_id": PermissionRule, "elicitation_id": Elicitation,
    "session_id": Session, "shell_id": ShellRow, "snapshot_id": Snapshot, "workspace_id": Task,
}  # fmt: skip
OF_SETTINGS = "settings:"


class Place(msgspec.Struct, frozen=True):
    """Where something is: on a board, mostly of a task; or, on none, `person`'s own. Else it is the whole host's."""

    board_id: str | None = None
    task_id: str | None = None
    person: str | None = None


class Ownership:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks = Locks()

    async def check(self, principal: Principal, **named: str) -> None:
        """Raise `Forbidden` unless all that is named (`task_id="…"`, `shell_id="…"`) is on boards of its own.

        `NotFound` for what is not there, whoever asks, `TypeError` for a name that is not one of `FIELDS`. All boards
        are those of who holds `boards:all`. Checks of the same things end in the order in which they began: no key
        strokes change places.
        """
        if principal.may(ALL_BOARDS):
            for field, id in named.items():
                await self.place(field, id)
            return
        async with self._locks.hold(repr(sorted(named.items()))):
            for field, id in named.items():
                await self._check(principal, field, await self.place(field, id), id)

    async def _check(self, principal: Principal, field: str, place: Place, id: str) -> None:
        if place.board_id is None:
            if place.person != principal.id:
                why = "This concerns the whole host" if place.person is None else "This is somebody else's own"
                raise Forbidden(ALL_BOARDS, f"{why}; ask an admin", owner=place.person)
            return
        board = await self._store.get(Board, place.board_id)
        if board is None:
            raise missing(field, id)
        if board.owner_id != principal.id:
            raise Forbidden(
                ALL_BOARDS,
                f"The board {board.name!r} belongs to another user; ask its owner, or an admin to hand it over",
                owner=board.owner_id,
                board_id=board.id,
            )

    async def place(self, field: str, id: str) -> Place:
        """Where the thing is that a request names so. Raises `NotFound`."""
        if field not in FIELDS:
            raise TypeError(f"{field} names nothing that has a board; those that do: {', '.join(FIELDS)}")
        if field == "rule_id" and id.startswith(OF_SETTINGS):
            return Place()
        row = await self._store.get(FIELDS[field], id)
        if row is None and field == "workspace_id":
            row = await self._first_in(id)
        if row is None:
            raise missing(field, id)
        if isinstance(row, Board):
            return Place(board_id=row.id)
        if isinstance(row, Column):
            return Place(board_id=row.board_id)
        if isinstance(row, Task):
            return Place(board_id=row.board_id, task_id=row.id)
        task_id: str | None = getattr(row, "task_id")  # noqa: B009 - each of the others has one
        if task_id is None:
            return Place(person=row.opened_by if isinstance(row, ShellRow) else None)
        task = await self._store.get(Task, task_id)
        if task is None:
            raise missing(field, id)
        return Place(board_id=task.board_id, task_id=task.id)

    async def _first_in(self, workspace_id: str) -> ShellRow | None:
        """A scratch workspace is whose first shell it was made for."""
        page = await self._store.find(ShellRow, [("workspace_id", "=", workspace_id)], limit=1)
        return page.rows[0] if page.rows else None


def missing(field: str, id: str) -> NotFound:
    """What is said of a thing that is not there."""
    return NotFound("workspace" if field == "workspace_id" else KINDS[FIELDS[field]], id)
