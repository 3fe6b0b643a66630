"""From the structs of `models` to tables and back: one table per struct, one column per field."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from kandev_host import models

R = TypeVar("R", bound=models.Row)
Value = int | float | str | None
Kind = Literal["text", "integer", "boolean", "time", "json"]

TABLES: dict[type[models.Row], str] = {
    models.User: "users",
    models.Board: "boards",
    models.Column: "columns",
    models.Task: "tasks",
    models.TaskEvent: "task_events",
    models.AgentTypeRow: "agent_types",
    models.AgentInstance: "agent_instances",
    models.AgentLog: "agent_logs",
    models.Session: "sessions",
    models.Turn: "turns",
    models.PermissionRequest: "permission_requests",
    models.PermissionRule: "permission_rules",
    models.Elicitation: "elicitations",
    models.Usage: "usage",
    models.Workspace: "workspaces",
    models.QueueEntry: "queue_entries",
    models.ShellRow: "shells",
    models.Command: "commands",
    models.Receipt: "receipts",
    models.HostState: "host_state",
    models.Snapshot: "snapshots",
    models.AuditRow: "audit",
}
SEARCHED: dict[type[models.Row], str] = {
    models.Task: "tasks_fts",
    models.AgentLog: "agent_logs_fts",
    models.Command: "commands_fts",
}
NAMES = {table: kind.__name__.lower() for kind, table in TABLES.items()} | {
    "agent_types": "agent_type",
    "agent_instances": "agent",
    "permission_requests": "permission",
    "permission_rules": "permission_rule",
    "elicitations": "elicitation",
    "queue_entries": "queue_entry",
    "host_state": "host_state",
    "shells": "shell",
    "audit": "audit",
}

DEPTH_LIMIT = 64
_NO_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[^][{}]', re.DOTALL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode_json = msgspec.json.Encoder().encode


def from_time(value: datetime) -> int:
    """Microseconds since 1970. Exact: a float of seconds is within 0.12 µs until the year 2106."""
    return round(value.timestamp() * 1_000_000)


def to_time(value: int) -> datetime:
    return _EPOCH + timedelta(microseconds=value)


def utf8(value: Any) -> str:
    """Text that SQLite takes: what cannot be encoded is in no row."""
    return str(value).encode("utf-8", "replace").decode()


def _to_json(value: Any) -> str:
    return _encode_json(value).decode()


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kept = [part for part in get_args(hint) if part is not NoneType]
    return kept[0] if len(kept) == 1 else Any


def _kind_of(hint: Any) -> Kind:
    plain: dict[Any, Kind] = {str: "text", int: "integer", bool: "boolean", datetime: "time"}
    if get_origin(hint) is Literal:
        return "text"
    return plain.get(hint, "json")


def _deep(text: str) -> bool:
    """Is this JSON nested so deep that not everybody who reads it, or writes it again, gets to its end?"""
    if text.count("[") + text.count("{") <= DEPTH_LIMIT:
        return False
    depth = 0
    for bracket in _NO_BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_LIMIT:
            return True
    return False


class Field:
    """One column: how its values go in and come out. `nullable` fields sort their unknown values first."""

    def __init__(self, name: str, hint: Any) -> None:
        self.name = name
        inner = _without_none(hint)
        self.nullable = inner is not hint
        self.kind = _kind_of(inner)
        self.encode: Callable[[Any], Value] | None = None
        self.decode: Callable[[Any], Any] | None = None
        if self.kind == "time":
            self.encode, self.decode = from_time, to_time
        elif self.kind == "json":
            self.encode, self.decode = _to_json, msgspec.json.Decoder(inner).decode
        elif self.kind == "boolean":
            self.encode, self.decode = int, bool

    def forgive(self) -> None:
        """What somebody else wrote there, and is no such value, is read as something: the row can then be named."""
        decode = self.decode
        if decode is None:
            return

        def forgiving(value: Any) -> Any:
            try:
                if not (isinstance(value, str) and _deep(value)):
                    return decode(value)
            except (ValueError, OverflowError):
                pass
            return _EPOCH if self.kind == "time" else {"damaged": str(value)[:200]}

        self.decode = forgiving

    def stored(self, value: Any) -> Value:
        """The value as the column holds it."""
        return value if value is None or self.encode is None else self.encode(value)


class Mapper(Generic[R]):
    """Encodes rows of one kind to tuples in column order, and decodes them."""

    def __init__(self, kind: type[R]) -> None:
        self.kind = kind
        self.table = TABLES[kind]
        self.name = NAMES[self.table]
        hints = get_type_hints(kind)
        self.names: tuple[str, ...] = kind.__struct_fields__
        self.fields = {name: Field(name, hints[name]) for name in self.names}
        columns = list(self.fields.values())
        if kind is models.AuditRow:
            for column in columns:
                column.forgive()
        self._encoders = [(i, column.encode) for i, column in enumerate(columns) if column.encode]
        self._decoders = [(i, column.decode) for i, column in enumerate(columns) if column.decode]
        self.columns = ", ".join(f'"{name}"' for name in self.names)
        changed = ", ".join(f'"{name}" = excluded."{name}"' for name in self.names if name != "id")
        # An upsert, never INSERT OR REPLACE: that deletes the old row, and its children with it.
        self._insert = f'INSERT INTO "{self.table}" ({self.columns}) VALUES '  # noqa: S608
        self._marks = f"({','.join('?' * len(self.names))})"
        self._update = f" ON CONFLICT(id) DO UPDATE SET {changed}"

    def upsert(self, rows: int) -> str:
        """The statement that puts so many rows; of two with the same id the later one stays."""
        return self._insert + ",".join([self._marks] * rows) + self._update

    def insert(self) -> str:
        """The statement that adds one row."""
        return self._insert + self._marks

    def encode(self, row: models.Row) -> list[Value]:
        values: list[Any] = list(msgspec.structs.astuple(row))
        for i, encode in self._encoders:
            if values[i] is not None:
                values[i] = encode(values[i])
        return values

    def decode(self, record: Sequence[Any]) -> R:
        values = list(record)
        for i, decode in self._decoders:
            if values[i] is not None:
                values[i] = decode(values[i])
        return self.kind(**dict(zip(self.names, values, strict=True)))


@cache
def mapper(kind: type[R]) -> Mapper[R]:
    return Mapper(kind)
