"""The portable form: a line of JSON for each row and event, of any store and any later version.

The first line says what it is, the last one how many of each kind there were, so that a file that was cut is refused.
What only makes sense on the machine it was made on (workspaces, snapshots, the queue, receipts) is not carried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from kandev_host.errors import ValidationFailed
from kandev_host.events import Event
from kandev_host.models import (
    LIVE_STATUSES,
    AgentInstance,
    AgentLog,
    Board,
    Column,
    Command,
    Elicitation,
    PermissionRequest,
    PermissionRule,
    Row,
    Session,
    ShellRow,
    Task,
    TaskEvent,
    Turn,
    Usage,
    User,
    now,
)

FORMAT = 1
LINE_LIMIT_BYTES = 64 << 20
EVENT = "event"
# Parents before their children.
KINDS: Mapping[str, type[Row]] = {
    "user": User,
    "board": Board,
    "column": Column,
    "task": Task,
    "task_event": TaskEvent,
    "agent": AgentInstance,
    "log": AgentLog,
    "session": Session,
    "turn": Turn,
    "permission": PermissionRequest,
    "permission_rule": PermissionRule,
    "elicitation": Elicitation,
    "usage": Usage,
    "shell": ShellRow,
    "command": Command,
}
# Of no meaning, or of none but danger, on another machine.
_LEFT_OUT: Mapping[type[Row], Mapping[str, Any]] = {
    User: {"password_hash": None},
    AgentInstance: {"process_ref": None, "container_id": None, "container_name": None},
}
_REASON = "imported while it was under way"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    kandev_export: Annotated[int, Meta(ge=1)] = FORMAT
    version: str
    created_at: datetime


class End(msgspec.Struct, frozen=True, kw_only=True):
    end: dict[str, int]


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: str
    row: dict[str, Any]


def portable(row: Row) -> Row:
    """The row without what is of this machine alone."""
    return msgspec.structs.replace(row, **_LEFT_OUT.get(type(row), {}))


def row_of(kind: str, values: Mapping[str, Any]) -> Row | Event:
    """What a line holds. Raises `ValidationFailed` naming the field."""
    model: type[Any] | None = Event if kind == EVENT else KINDS.get(kind)
    if model is None:
        raise ValidationFailed("kind", f"{kind[:40]!r} is no kind of row; known: {', '.join((*KINDS, EVENT))}")
    unknown = sorted(values.keys() - {field.name for field in msgspec.structs.fields(model)})
    if unknown:
        raise ValidationFailed(unknown[0], f"a {kind} has no field {unknown[0][:40]!r}")
    try:
        if kind != EVENT:
            found: Row = msgspec.convert(values, model)
            return settled(portable(found))
        payload = msgspec.Raw(msgspec.json.encode(values.get("payload")))
        rest = {name: value for name, value in values.items() if name not in {"payload", "seq", "text"}}
        event: Event = msgspec.convert({**rest, "payload": None}, _EventLine).event(payload)
        return event
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise ValidationFailed("row", f"{kind}: {error}") from error


class _EventLine(msgspec.Struct, kw_only=True):
    """An event as it is validated: `Event` itself holds its payload encoded."""

    action: Annotated[str, Meta(min_length=1, max_length=200)]
    id: str
    actor: str
    board_id: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    turn_id: str | None = None
    shell_id: str | None = None
    to_all: bool = True
    created_at: Annotated[datetime, Meta(tz=True)]
    payload: None = None

    def event(self, payload: msgspec.Raw) -> Event:
        return Event(**{**msgspec.structs.asdict(self), "payload": payload})


def values_of(row: Row | Event) -> dict[str, Any]:
    """The line's fields, as JSON has them."""
    if isinstance(row, Event):
        fields = {name: value for name, value in msgspec.structs.asdict(row).items() if name not in {"text", "payload"}}
        return {**fields, "payload": msgspec.json.decode(row.payload)}
    built: dict[str, Any] = msgspec.to_builtins(portable(row))
    return built


def settled(row: Row) -> Row:
    """As it would be had its host ended in order: nothing runs here because it ran elsewhere."""
    change = _ENDS.get(type(row))
    return row if change is None else change(row)


def _agent(row: AgentInstance) -> Row:
    if row.status not in LIVE_STATUSES:
        return msgspec.structs.replace(row, activity=None)
    ended = row.stopped_at or row.updated_at
    return msgspec.structs.replace(row, status="STOPPED", activity=None, stopped_at=ended, error_message=_REASON)


def _turn(row: Turn) -> Row:
    if row.state not in {"queued", "running"}:
        return row
    return msgspec.structs.replace(row, state="cancelled", error=_REASON, ended_at=row.ended_at or row.created_at)


def _asked(row: PermissionRequest | Elicitation) -> Row:
    if row.state != "pending":
        return row
    return msgspec.structs.replace(row, state="cancelled", reason=_REASON, resolved_at=now())


def _session(row: Session) -> Row:
    return msgspec.structs.replace(row, closed_at=row.closed_at or row.created_at)


def _shell(row: ShellRow) -> Row:
    if row.state == "closed":
        return row
    return msgspec.structs.replace(row, state="closed", closed_at=now(), reason=_REASON)


def _command(row: Command) -> Row:
    return msgspec.structs.replace(row, state="lost", reason=_REASON) if row.state == "running" else row


_ENDS: Mapping[type[Row], Callable[[Any], Row]] = {
    AgentInstance: _agent,
    Turn: _turn,
    PermissionRequest: _asked,
    Elicitation: _asked,
    Session: _session,
    ShellRow: _shell,
    Command: _command,
}
