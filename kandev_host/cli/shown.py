"""How rows are shown: as tables, or one of them in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kandev_host.cli.ids import short
from kandev_host.cli.output import fields, table

Row = Mapping[str, Any]


def text(value: Any) -> str:
    """A value in a table; `-` is none."""
    return "-" if value is None else str(value)


def moment(time: Any) -> str:
    """A time to the second, in UTC."""
    return "-" if time is None else f"{str(time)[:19].replace('T', ' ')}Z"


def column_table(columns: Iterable[Row]) -> None:
    """The columns of a board, by position."""
    table(
        ["ID", "POSITION", "NAME", "STATE", "WIP LIMIT"],
        (
            [short(row["id"]), text(row["position"]), row["name"], text(row["state"]), text(row["wip_limit"])]
            for row in columns
        ),
    )


def task_table(tasks: Iterable[Row]) -> None:
    """Tasks, one a line."""
    table(
        ["ID", "STATE", "PRIORITY", "AGENT", "TITLE"],
        (
            [short(row["id"]), row["state"], text(row["priority"]), text(row["agent_type"]), row["title"]]
            for row in tasks
        ),
    )


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
