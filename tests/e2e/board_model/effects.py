"""What each request does that nothing stands against: the world after it, the answer, what is told of it. Pure.

The answer is compared as a whole; of what only the host can know (ids, times) its form is, and it is taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .world import A_TIME, FINISHED, ME, Row, Told, World, first_column, same

NEW_COLUMNS = [("To Do", "TODO"), ("In Progress", "IN_PROGRESS"), ("Blocked", "BLOCKED"), ("Done", "COMPLETED")]
NEW_TASK: Row = {
    "state_reason": None, "priority": 0, "agent_type": None, "repository_url": None, "branch": None, "blocked_by": [],
    "assigned_agent_id": None, "metadata": {}, "mcp_servers": [], "directories": [], "credentials": [], "allow": [],
    "version": 1, "created_by": ME, "created_at": A_TIME,
    "updated_at": A_TIME, "started_at": None, "completed_at": None,
}  # fmt: skip


def _told(noun: str, verb: str, row: Row, **more: Any) -> Told:
    return Told(f"{noun}.{verb}", row["id"] if noun == "board" else row["board_id"], {noun: dict(row), **more})


def _changed(row: Row, **changes: Any) -> Row:
    return {**row, **changes, "version": row["version"] + 1, "updated_at": A_TIME}


def _fields(payload: Row, *names: str) -> Row:
    return {name: payload[name] for name in names if name in payload}


def _board_create(world: World, payload: Row, got: Row) -> list[Told]:
    id = got["board"]["id"]
    board = {
        "id": id, "name": payload["name"], "description": payload.get("description"), "owner_id": ME, "version": 1,
        "created_at": A_TIME, "updated_at": A_TIME,
    }  # fmt: skip
    columns = [
        _new_column(column["id"], id, name, position, state)
        for position, (column, (name, state)) in enumerate(zip(got["columns"], NEW_COLUMNS, strict=True))
    ]
    same({"board": board, "columns": columns}, got, "board.create")
    world.boards[id], world.columns[id] = got["board"], list(got["columns"])
    return [_told("board", "created", got["board"])]


def _new_column(id: str, board_id: str, name: str, position: int, state: str | None) -> Row:
    return {
        "id": id, "board_id": board_id, "name": name, "position": position, "wip_limit": None, "state": state,
        "version": 1, "created_at": A_TIME, "updated_at": A_TIME,
    }  # fmt: skip


def _board_get(world: World, payload: Row, got: Row) -> list[Told]:
    id = payload["board_id"]
    same({"board": world.boards[id], "columns": world.columns[id]}, got, "board.get")
    return []


def _board_update(world: World, payload: Row, got: Row) -> list[Told]:
    board = world.boards[payload["board_id"]]
    new = {**board, **_fields(payload, "name", "description")}
    if new == board:
        same({"board": board}, got, "board.update of nothing")
        return []
    same({"board": _changed(new)}, got, "board.update")
    world.boards[board["id"]] = got["board"]
    return [_told("board", "updated", got["board"])]


def _board_delete(world: World, payload: Row, got: Row) -> list[Told]:
    board, columns = world.boards.pop(payload["board_id"]), world.columns.pop(payload["board_id"])
    tasks = [task["id"] for task in world.tasks.values() if task["board_id"] == board["id"]]
    removed = {"columns": len(columns), "tasks": len(tasks), "agents": 0, "stopped": 0, "workspaces_left": 0}
    same({"board_id": board["id"], "deleted": True, "removed": removed}, got, "board.delete")
    told = [_told("task", "deleted", dict(world.tasks[id])) for id in sorted(tasks)]
    for id in tasks:
        world.take(world.tasks[id])
        del world.tasks[id], world.history[id]
    world.gone += [board["id"], *(column["id"] for column in columns), *tasks]
    return [*told, _told("board", "deleted", board)]


def _column_list(world: World, payload: Row, got: Row) -> list[Told]:
    same({"columns": world.columns[payload["board_id"]], "next_cursor": None}, got, "column.list")
    return []


def _numbered(columns: list[Row]) -> list[Told]:
    """Number them as they stand; what is told of those whose number is new."""
    told = []
    for position, column in enumerate(columns):
        if column["position"] != position:
            columns[position] = _changed(column, position=position)
            told.append(_told("column", "updated", columns[position]))
    return told


def _column_create(world: World, payload: Row, got: Row) -> list[Told]:
    columns = world.columns[payload["board_id"]]
    wanted = payload.get("position")
    at = len(columns) if wanted is None else min(wanted, len(columns))
    column = _new_column(got["column"]["id"], payload["board_id"], payload["name"], at, payload.get("state"))
    same({"column": {**column, "wip_limit": payload.get("wip_limit")}}, got, "column.create")
    columns.insert(at, got["column"])
    return [_told("column", "created", got["column"]), *_numbered(columns)]


def _column_update(world: World, payload: Row, got: Row) -> list[Told]:
    columns, column = _column_of(world, payload)
    new = {**column, **_fields(payload, "name", "wip_limit", "state")}
    if new == column:
        same({"column": column}, got, "column.update of nothing")
        return []
    same({"column": _changed(new)}, got, "column.update")
    columns[columns.index(column)] = got["column"]
    return [_told("column", "updated", got["column"])]


def _column_of(world: World, payload: Row) -> tuple[list[Row], Row]:
    column = world.column(payload["column_id"])
    assert column is not None
    return world.columns[column["board_id"]], column


def _column_move(world: World, payload: Row, got: Row) -> list[Told]:
    columns, column = _column_of(world, payload)
    columns.remove(column)
    columns.insert(payload["position"], column)
    told = _numbered(columns)
    same({"columns": columns, "next_cursor": None}, got, "column.move")
    columns[:] = got["columns"]
    return told


def _column_delete(world: World, payload: Row, got: Row) -> list[Told]:
    columns, column = _column_of(world, payload)
    columns.remove(column)
    moved = list(world.places.get((column["board_id"], column["id"]), []))
    went: dict[str | None, Row] = {}
    told = [_told("column", "deleted", column), *_numbered(columns)]
    for old in [dict(world.tasks[id]) for id in moved]:
        world.tasks[old["id"]] = task = _changed(old)
        target = first_column(columns, task["state"]) or {"id": None, "name": None}
        world.put(task, target["id"], None)
        part = went.setdefault(target["id"], {"column_id": target["id"], "name": target["name"], "tasks": 0})
        part["tasks"] += 1
        _note(world, task, "moved", _move_metadata(old, task))
    told += [_told("task", "updated", world.tasks[id]) for id in moved]
    removed = {"tasks_moved": len(moved), "moved_to": list(went.values())}
    same({"column_id": column["id"], "deleted": True, "removed": removed}, got, "column.delete")
    world.gone.append(column["id"])
    return told


def _note(
    world: World, task: Row, type: str, metadata: Row, old_state: str | None = None, new_state: str | None = None
) -> None:
    lines = world.history.setdefault(task["id"], [])
    line = {"task_id": task["id"], "version": len(lines) + 1, "event_type": type}
    lines.append({**line, "old_state": old_state, "new_state": new_state, "metadata": metadata, "created_by": ME})


def _move_metadata(old: Row, new: Row) -> Row:
    return {name: {"old": old[name], "new": new[name]} for name in ("column_id", "position")}


def _state_times(task: Row, state: str) -> Row:
    """When work on it began and ended, once it is in this state."""
    if state == "TODO":
        return {"started_at": None, "completed_at": None}
    if state == "IN_PROGRESS":
        kept = task["state"] == "BLOCKED" and task["started_at"]
        return {"started_at": task["started_at"] if kept else A_TIME, "completed_at": None}
    return {"completed_at": A_TIME} if state in FINISHED else {}


def _task_create(world: World, payload: Row, got: Row) -> list[Told]:
    columns = world.columns[payload["board_id"]]
    asked = payload.get("column_id")
    column = first_column(columns) if asked is None else next(each for each in columns if each["id"] == asked)
    column_id = None if column is None else column["id"]
    state = (None if column is None else column["state"]) or "TODO"
    task = {
        **NEW_TASK,
        **_fields(payload, "board_id", "title", "description", "priority", "metadata"),
        "id": got["task"]["id"],
        "blocked_by": list(dict.fromkeys(payload.get("blocked_by", []))),
        "state": state,
        **_state_times(NEW_TASK | {"state": "TODO"}, state),
        "column_id": column_id,
        "position": len(world.places.get((payload["board_id"], column_id), [])),
    }
    same({"task": task}, got, "task.create")
    world.tasks[task["id"]] = dict(got["task"])
    world.put(world.tasks[task["id"]], column_id, None)
    _note(world, task, "created", {}, None, state)
    return [_told("task", "created", got["task"])]


def _task_get(world: World, payload: Row, got: Row) -> list[Told]:
    same({"task": world.tasks[payload["task_id"]]}, got, "task.get")
    return []


def _task_update(world: World, payload: Row, got: Row) -> list[Told]:
    task = world.tasks[payload["task_id"]]
    wanted = _fields(payload, "title", "description", "priority", "metadata")
    if "blocked_by" in payload:
        wanted["blocked_by"] = list(dict.fromkeys(payload["blocked_by"]))
    differing = {name: value for name, value in wanted.items() if task[name] != value}
    if not differing:
        same({"task": task}, got, "task.update of nothing")
        return []
    same({"task": _changed(task, **differing)}, got, "task.update")
    long = ("description", "metadata")
    lines = {name: {} if name in long else {"old": task[name], "new": new} for name, new in differing.items()}
    world.tasks[task["id"]] = dict(got["task"])
    _note(world, task, "updated", {"changed": lines})
    return [_told("task", "updated", got["task"])]


def _task_state(world: World, payload: Row, got: Row) -> list[Told]:
    old = dict(world.tasks[payload["task_id"]])
    state, reason = payload["state"], payload.get("reason")
    column = next((each for each in world.columns[old["board_id"]] if each["state"] == state), None)
    column_id = old["column_id"] if column is None else column["id"]
    metadata = {} if reason is None else {"reason": reason}
    return _to_state(world, old, state, reason, metadata, column_id, None, got)


def _to_state(
    world: World,
    old: Row,
    state: str,
    reason: str | None,
    metadata: Row,
    column_id: str | None,
    at: int | None,
    got: Row,
) -> list[Told]:
    task = _changed(old, state=state, state_reason=reason, **_state_times(old, state))
    world.tasks[old["id"]] = task
    if column_id != old["column_id"]:
        world.put(task, column_id, at)
        metadata = {**metadata, **_move_metadata(old, task)} if at is not None else metadata
    same({"task": task}, got, "the new state")
    world.tasks[old["id"]] = dict(got["task"])
    _note(world, task, "state_changed", metadata, old["state"], state)
    return [_told("task", "state_changed", got["task"], old_state=old["state"], new_state=state)]


def _task_move(world: World, payload: Row, got: Row) -> list[Told]:
    old = dict(world.tasks[payload["task_id"]])
    column = world.column(payload["column_id"])
    assert column is not None
    if column["id"] != old["column_id"] and column["state"] not in {None, old["state"]}:
        return _to_state(world, old, column["state"], None, {}, column["id"], payload["position"], got)
    task = world.tasks[old["id"]]
    world.put(task, column["id"], payload["position"])
    if (task["column_id"], task["position"]) == (old["column_id"], old["position"]):
        same({"task": old}, got, "task.move to where it is")
        return []
    same({"task": _changed(task)}, got, "task.move")
    world.tasks[old["id"]] = dict(got["task"])
    _note(world, task, "moved", _move_metadata(old, task))
    return [_told("task", "updated", got["task"])]


def _task_delete(world: World, payload: Row, got: Row) -> list[Told]:
    task = world.tasks[payload["task_id"]]
    removed = {"agents": 0, "stopped": 0, "workspace": False, "workspace_left": None}
    same({"task_id": task["id"], "deleted": True, "removed": removed}, got, "task.delete")
    told = _told("task", "deleted", task)
    world.take(task)
    del world.tasks[task["id"]], world.history[task["id"]]
    world.gone.append(task["id"])
    return [told]


def same_history(expected: Sequence[Row], actual: Sequence[Row]) -> None:
    """Lines may say more in their metadata than the rules ask for."""
    shown = [
        {**line, "metadata": {key: line["metadata"][key] for key in wanted["metadata"] if key in line["metadata"]}}
        for wanted, line in zip(expected, actual, strict=False)
    ]
    hidden = {"id", "created_at"}
    told = [{key: value for key, value in line.items() if key not in hidden} for line in shown]
    same(list(expected), told, "task.events")
    same(len(expected), len(actual), "lines of task.events")


EFFECTS: dict[str, Callable[[World, Row, Row], list[Told]]] = {
    "board.create": _board_create,
    "board.get": _board_get,
    "board.update": _board_update,
    "board.delete": _board_delete,
    "column.list": _column_list,
    "column.create": _column_create,
    "column.update": _column_update,
    "column.move": _column_move,
    "column.delete": _column_delete,
    "task.create": _task_create,
    "task.get": _task_get,
    "task.update": _task_update,
    "task.state": _task_state,
    "task.move": _task_move,
    "task.delete": _task_delete,
}
