"""How rows are shown: as tables, or one of them in full."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kandev_host.cli.ids import is_id, short
from kandev_host.cli.output import fields, table

Row = Mapping[str, Any]


def text(value: Any) -> str:
    """A value in a table; `-` is none."""
    return "-" if value is None else str(value)


def moment(time: Any) -> str:
    """A time to the second, in UTC."""
    return "-" if time is None else f"{str(time)[:19].replace('T', ' ')}Z"


def credential(row: Row) -> str:
    """A credential that an agent type has, as in `git fetch of its repository`."""
    if row["way"] == "git" and row["verb"]:
        return f"git {row['verb']} of {row['what'] or 'its repository'}"
    return f"{row['way']} {row['what'] or row['name']}{' (missing)' if row['missing'] else ''}"


def column_table(columns: Iterable[Row]) -> None:
    """The columns of a board, by position."""
    table(
        ["ID", "POSITION", "NAME", "STATE", "WIP LIMIT"],
        (
            [short(row["id"]), text(row["position"]), row["name"], text(row["state"]), text(row["wip_limit"])]
            for row in columns
        ),
    )


def task_table(tasks: Iterable[Row], boards: Mapping[str, str] | None) -> None:
    """Tasks, one a line; unless it is None, with their boards, by name or else by the ending of the id."""
    table(
        ["ID", *([] if boards is None else ["BOARD"]), "STATE", "PRIORITY", "AGENT", "TITLE"],
        (
            [
                short(row["id"]),
                *([] if boards is None else [boards.get(row["board_id"], short(row["board_id"]))]),
                row["state"],
                text(row["priority"]),
                text(row["agent_type"]),
                row["title"],
            ]
            for row in tasks
        ),
    )


def states_told(old: Any, new: Any) -> str:
    """A change of state; `-` is none."""
    return text(new) if old is None else f"{old} → {text(new)}"


def changes_told(metadata: Row) -> Iterator[str]:
    """What a line of a task's history says besides its state, as in "priority: 0 → 9"."""
    for name, value in metadata.items():
        if name == "changed" and isinstance(value, dict):
            yield from changes_told(value)
        elif value == {}:  # too long to be kept twice
            yield f"{name}: changed"
        elif isinstance(value, dict) and value.keys() == {"old", "new"}:
            if value["old"] != value["new"]:
                yield f"{name}: {_field(value['old'])} → {_field(value['new'])}"
        else:
            yield f"{name}: {_field(value)}"


def _field(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_field, value)) or "none"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return short(value) if isinstance(value, str) and is_id(value) else text(value)


def task_in_full(task: Row) -> None:
    """Every field of a task; its description last."""
    pairs = [(name, value) for name, value in task.items() if name != "description"]
    fields([*pairs, ("description", task["description"])])


def agent_table(agents: Iterable[Row]) -> None:
    """Agents, one a line."""
    table(
        ["ID", "AGENT", "STATUS", "ACTIVITY", "TASK", "STARTED", "WHY IT ENDED"],
        (
            [
                short(row["id"]),
                row["agent_type"],
                row["status"],
                text(row["activity"]),
                short(row["task_id"]),
                moment(row["started_at"]),
                row["error_message"] or "",
            ]
            for row in agents
        ),
    )


def rule_table(rules: Iterable[Row]) -> None:
    """Rules of permission; what a rule does not name is any."""
    table(
        ["ID", "EFFECT", "AGENT", "TASK", "KIND", "PATH", "COMMAND", "REASON"],
        (
            [
                row["id"] if row["id"].startswith("settings:") else short(row["id"]),
                row["effect"],
                text(row["agent_type"]),
                short(row["task_id"]),
                text(row["kind"]),
                text(row["path"]),
                "-" if row["command"] is None else shlex.join(row["command"]),
                row["reason"] or "",
            ]
            for row in rules
        ),
    )


def elicitation_table(elicitations: Iterable[Row]) -> None:
    """What agents ask people for: the fields of a form, or the address."""
    table(
        ["ID", "STATE", "TASK", "WHAT", "FIELDS OR ADDRESS"],
        (
            [
                short(row["id"]),
                row["state"],
                short(row["task_id"]),
                row["message"],
                row["url"] or ", ".join((row["requested_schema"] or {}).get("properties") or {}),
            ]
            for row in elicitations
        ),
    )


def permission_table(permissions: Iterable[Row]) -> None:
    """Permission requests, with the options that there are."""
    table(
        ["ID", "STATE", "TASK", "WHAT", "OPTIONS"],
        (
            [
                short(row["id"]),
                row["state"],
                short(row["task_id"]),
                text(row["tool_call"].get("title") or row["tool_call"].get("toolCallId")),
                ", ".join(f"{option.get('optionId')} ({option.get('kind')})" for option in row["options"]),
            ]
            for row in permissions
        ),
    )
