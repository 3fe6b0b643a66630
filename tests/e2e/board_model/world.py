"""Boards, columns and tasks as the wire shows them, without a store and without a host. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Row = dict[str, Any]
Place = tuple[str, str | None]

ME = "00000000-0000-7000-8000-000000000001"
FINISHED = ("COMPLETED", "FAILED", "CANCELLED")


class Difference(AssertionError):
    """The host and the rules do not agree."""


class _Any:
    """A time that nobody has told us yet."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str | _Any)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<a time>"

    def __deepcopy__(self, _memo: object) -> _Any:
        return self


A_TIME: Any = _Any()


class Sent(NamedTuple):
    action: str
    payload: Row
    id: str
    socket: int


class Reply(NamedTuple):
    error: bool
    payload: Row


class Told(NamedTuple):
    """A notification. Those of one request may come in any order."""

    action: str
    board_id: str
    payload: Row


@dataclass
class World:
    boards: dict[str, Row] = field(default_factory=dict)
    columns: dict[str, list[Row]] = field(default_factory=dict)
    """Of each board, in their order."""
    tasks: dict[str, Row] = field(default_factory=dict)
    places: dict[Place, list[str]] = field(default_factory=dict)
    """Task ids in their order, of each column and of each board's place without one."""
    history: dict[str, list[Row]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    def column(self, id: str) -> Row | None:
        return next((column for columns in self.columns.values() for column in columns if column["id"] == id), None)

    def place(self, task: Row) -> list[str]:
        return self.places.setdefault((task["board_id"], task["column_id"]), [])

    def all_columns(self) -> list[Row]:
        return [column for columns in self.columns.values() for column in columns]

    def put(self, task: Row, column_id: str | None, position: int | None) -> None:
        """Into a column at a position (None: its end), with all positions dense again."""
        if task["id"] in self.place(task):
            self.take(task)
        task["column_id"] = column_id
        ids = self.place(task)
        ids.insert(len(ids) if position is None else position, task["id"])
        self._number(ids)

    def take(self, task: Row) -> None:
        ids = self.place(task)
        ids.remove(task["id"])
        self._number(ids)

    def _number(self, ids: Sequence[str]) -> None:
        for position, id in enumerate(ids):
            self.tasks[id]["position"] = position


def same(expected: object, actual: object, what: str) -> None:
    if expected != actual:
        raise Difference(f"{what}:\n  the rules say {expected}\n  the host says {actual}")


def first_column(columns: Sequence[Row], state: str = "TODO") -> Row | None:
    """Where a task of this state goes when no column is named."""
    by_state = [column for column in columns if column["state"] == state]
    return next(iter([*by_state, *(column for column in columns if column["state"] is None)]), None)
