"""What stands against each request, as docs/protocol.md says it: all the reasons, in no order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .world import FINISHED, Row, World, first_column

Reason = tuple[str, Any]
"""A code, and the detail that tells it from others."""


def reason_of(error: Row) -> Reason:
    """The reason that the host gives."""
    code, details = error["code"], error["details"]
    if code == "NOT_FOUND":
        return code, (details["kind"], details["id"])
    return code, details.get("field" if code == "VALIDATION_ERROR" else "state")


def _version(row: Row, payload: Row) -> Iterator[Reason]:
    if payload.get("expected_version") not in {None, row["version"]}:
        yield "CONFLICT", f"version {row['version']}"


def _known(kind: str, rows: Callable[[World, str], Row | None]) -> Callable[[World, Row], Iterator[Reason]]:
    def refusals(world: World, payload: Row) -> Iterator[Reason]:
        row = rows(world, payload[f"{kind}_id"])
        if row is None:
            yield "NOT_FOUND", (kind, payload[f"{kind}_id"])
        else:
            yield from _version(row, payload)

    return refusals


_board = _known("board", lambda world, board_id: world.boards.get(board_id))
_column = _known("column", World.column)
_task = _known("task", lambda world, task_id: world.tasks.get(task_id))


def _state_taken(columns: Sequence[Row], state: str | None, but: str | None = None) -> Iterator[Reason]:
    if state is not None and any(column["state"] == state and column["id"] != but for column in columns):
        yield "CONFLICT", state


def _no_room(world: World, column: Row) -> Iterator[Reason]:
    if column["wip_limit"] is not None:
        held = world.places.get((column["board_id"], column["id"]), [])
        if len(held) >= column["wip_limit"]:
            yield "CONFLICT", "full"


def _no_column(world: World, board_id: str, column_id: str) -> Iterator[Reason]:
    column = world.column(column_id)
    if column is None:
        yield "NOT_FOUND", ("column", column_id)
    elif column["board_id"] != board_id:
        yield "VALIDATION_ERROR", "column_id"


def _no_transition(old: str, new: str) -> Iterator[Reason]:
    if not (new == "TODO" if old in FINISHED else new != old):
        yield "CONFLICT", old


def _column_create(world: World, payload: Row) -> Iterator[Reason]:
    yield from _board(world, payload)
    yield from _state_taken(world.columns.get(payload["board_id"], []), payload.get("state"))


def _column_update(world: World, payload: Row) -> Iterator[Reason]:
    yield from _column(world, payload)
    column = world.column(payload["column_id"])
    if column is not None:
        yield from _state_taken(world.columns[column["board_id"]], payload.get("state"), column["id"])


def _column_delete(world: World, payload: Row) -> Iterator[Reason]:
    yield from _column(world, payload)
    column = world.column(payload["column_id"])
    if column is not None and not payload.get("force") and world.places.get((column["board_id"], column["id"])):
        yield "CONFLICT", "not empty"


def _blockers(world: World, payload: Row, task: Row | None) -> Iterator[Reason]:
    wanted = payload.get("blocked_by", ())
    present = task["blocked_by"] if task is not None else ()
    for index, id in enumerate(wanted):
        if task is not None and id == task["id"]:
            yield "VALIDATION_ERROR", f"blocked_by[{index}]"
        elif id not in world.tasks and id not in present:
            yield "NOT_FOUND", ("task", id)
    if task is not None and "blocked_by" in payload and task["id"] in _waited_for(world, wanted):
        yield "CONFLICT", "cycle"


def _waited_for(world: World, ids: Sequence[str]) -> set[str]:
    """What the tasks of these ids wait for, at any distance."""
    found: set[str] = set()
    waiting = [blocker for id in ids if id in world.tasks for blocker in world.tasks[id]["blocked_by"]]
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting += world.tasks[id]["blocked_by"] if id in world.tasks else []
    return found


def _task_create(world: World, payload: Row) -> Iterator[Reason]:
    yield from _board(world, payload)
    yield from _blockers(world, payload, None)
    columns = world.columns.get(payload["board_id"], [])
    column = first_column(columns)
    if payload.get("column_id") is not None:
        yield from _no_column(world, payload["board_id"], payload["column_id"])
        column = next((each for each in columns if each["id"] == payload["column_id"]), None)
    if column is not None:
        yield from _no_room(world, column)


def _task_update(world: World, payload: Row) -> Iterator[Reason]:
    yield from _task(world, payload)
    task = world.tasks.get(payload["task_id"])
    if task is not None:
        yield from _blockers(world, payload, task)


def _task_state(world: World, payload: Row) -> Iterator[Reason]:
    yield from _task(world, payload)
    task = world.tasks.get(payload["task_id"])
    if task is not None:
        yield from _no_transition(task["state"], payload["state"])
        columns = world.columns[task["board_id"]]
        column = next((each for each in columns if each["state"] == payload["state"]), None)
        if column is not None and column["id"] != task["column_id"]:
            yield from _no_room(world, column)


def _task_move(world: World, payload: Row) -> Iterator[Reason]:
    yield from _task(world, payload)
    task = world.tasks.get(payload["task_id"])
    if task is None:
        return
    yield from _no_column(world, task["board_id"], payload["column_id"])
    column = world.column(payload["column_id"])
    if column is not None and column["board_id"] == task["board_id"] and column["id"] != task["column_id"]:
        yield from _no_room(world, column)
        if column["state"] not in {None, task["state"]}:
            yield from _no_transition(task["state"], column["state"])


REFUSALS: dict[str, Callable[[World, Row], Iterator[Reason]]] = {
    "board.create": lambda _world, _payload: iter(()),
    "board.get": _board,
    "board.update": _board,
    "board.delete": _board,
    "column.list": _board,
    "column.create": _column_create,
    "column.update": _column_update,
    "column.move": _column,
    "column.delete": _column_delete,
    "task.create": _task_create,
    "task.get": _task,
    "task.update": _task_update,
    "task.state": _task_state,
    "task.move": _task_move,
    "task.delete": _task,
}
