"""From the store's conditions, orders and cursors to SQL."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from types import NoneType
from typing import Any

import msgspec

from kandev_host import errors, models
from kandev_sqlite.mapper import SEARCHED, Field, Mapper, Value
from kandev_sqlite.text import fts_query

INT64 = 1 << 63
_STORABLE = (int, float, str, NoneType)
COMPARISONS = frozenset({"<", "<=", ">", ">="})
Where = Sequence[tuple[str, str, Any]]
Sql = tuple[str, list[Value]]
Key = list[tuple[Field, bool]]  # (column, descending)


def column(table: Mapper[Any], name: str) -> Field:
    """The column of this name, if rows can be chosen and sorted by it."""
    found = table.fields.get(name)
    if found is None or found.kind == "json":
        raise errors.ValidationFailed(name, f"A {table.name} cannot be chosen or sorted by {name!r}")
    return found


def stored(field: Field, value: Any) -> Value:
    """The value as the column holds it; one that no row can have is refused."""
    try:
        encoded = field.stored(value)
        if isinstance(encoded, str):
            encoded.encode()
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise errors.ValidationFailed(field.name, f"No {field.name} is {value!r}") from error
    if not isinstance(encoded, _STORABLE) or (isinstance(encoded, int) and not -INT64 <= encoded < INT64):
        raise errors.ValidationFailed(field.name, f"No {field.name} is {value!r}")
    return encoded


def conditions(table: Mapper[Any], where: Where) -> Sql:
    """All conditions, joined by AND."""
    parts: list[str] = []
    values: list[Value] = []
    for name, op, value in where:
        sql, bound = _match(table, value) if op == "match" else _compare(column(table, name), op, value)
        parts.append(sql)
        values += bound
    return " AND ".join(parts) or "true", values


def _match(table: Mapper[Any], text: Any) -> Sql:
    index = SEARCHED.get(table.kind)
    if index is None:
        raise errors.ValidationFailed("text", f"There is no full-text search over {table.table}")
    query = fts_query(str(text))
    if query is None:
        return "false", []
    return f"n IN (SELECT rowid FROM {index} WHERE {index} MATCH ?)", [query]  # noqa: S608


def _compare(field: Field, op: str, value: Any) -> Sql:
    if op == "=":
        return f'"{field.name}" IS ?', [stored(field, value)]
    if op in COMPARISONS:
        return f'"{field.name}" {op} ?', [stored(field, value)]
    if op == "in":
        values = [stored(field, item) for item in value]
        known: list[Value] = [item for item in values if item is not None]
        sql = f'"{field.name}" IN ({", ".join("?" * len(known))})'
        return (f'({sql} OR "{field.name}" IS NULL)' if len(known) < len(values) else sql), known
    raise errors.ValidationFailed(field.name, f"There is no comparison {op!r}")


def key_of(table: Mapper[Any], order: Sequence[str]) -> Key:
    """The columns to sort by. `id` is added where it is not among them, so that no two rows are equal."""
    key = [(column(table, name.removeprefix("-")), name.startswith("-")) for name in order]
    if all(field.name != "id" for field, _ in key):
        key.append((table.fields["id"], False))
    return key


def select(table: Mapper[Any], where: Where, key: Key, limit: int, cursor: str | None) -> Sql:
    """One page: the rows that meet every condition, from the cursor on, and one more than `limit`."""
    chosen, values = conditions(table, where)
    if cursor is not None:
        beyond, bound = after(key, read_cursor(table, key, cursor))
        chosen, values = f"{chosen} AND {beyond}", values + bound
    return (
        f'SELECT {table.columns} FROM "{table.table}" WHERE {chosen} ORDER BY {order_by(key)} LIMIT {limit + 1}',  # noqa: S608
        values,
    )


def order_by(key: Key) -> str:
    return ", ".join(f'"{field.name}"{" DESC" if descending else ""}' for field, descending in key)


def after(key: Key, values: Sequence[Value]) -> Sql:
    """The rows that follow the one with these values, unknown values being the smallest."""
    directions = {descending for _, descending in key}
    if len(directions) == 1 and not any(field.nullable for field, _ in key):
        names = ", ".join(f'"{field.name}"' for field, _ in key)
        marks = ", ".join("?" * len(key))
        return f"({names}) {'<' if directions == {True} else '>'} ({marks})", list(values)
    parts: list[str] = []
    bound: list[Value] = []
    for i, ((field, descending), value) in enumerate(zip(key, values, strict=True)):
        beyond, last = _beyond(field, descending, value)
        same = [f'"{earlier.name}" IS ?' for earlier, _ in key[:i]]
        parts.append("(" + " AND ".join([*same, beyond]) + ")")
        bound += [*values[:i], *last]
    return "(" + " OR ".join(parts) + ")", bound


def _beyond(field: Field, descending: bool, value: Value) -> Sql:
    name = f'"{field.name}"'
    if value is None:
        return ("false" if descending else f"{name} IS NOT NULL"), []
    if descending:
        return (f"({name} < ? OR {name} IS NULL)" if field.nullable else f"{name} < ?"), [value]
    return f"{name} > ?", [value]


def _signature(table: Mapper[Any], key: Key) -> str:
    return hashlib.sha256(f"{table.table} {order_by(key)}".encode()).hexdigest()[:8]


def cursor_at(table: Mapper[Any], key: Key, row: models.Row) -> str:
    """An opaque name of this row's place in this order."""
    values = [field.stored(getattr(row, field.name)) for field, _ in key]
    return base64.urlsafe_b64encode(msgspec.json.encode([_signature(table, key), *values])).decode().rstrip("=")


def read_cursor(table: Mapper[Any], key: Key, cursor: str) -> list[Value]:
    """The place a cursor names. Raises `ValidationFailed` for one that this order did not make."""
    try:
        text = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        signature, *values = msgspec.json.decode(text, type=list[int | str | None])
    except (binascii.Error, UnicodeError, ValueError, msgspec.DecodeError) as error:
        raise errors.ValidationFailed("cursor", "This is not a cursor") from error
    expected = [int if field.kind in {"integer", "boolean", "time"} else str for field, _ in key]
    if signature != _signature(table, key) or len(values) != len(key):
        raise errors.ValidationFailed("cursor", "This cursor belongs to another list or order")
    for value, type_, (field, _) in zip(values, expected, key, strict=True):
        usable = isinstance(value, type_) and not (isinstance(value, int) and not -INT64 <= value < INT64)
        if not usable and not (value is None and field.nullable):
            raise errors.ValidationFailed("cursor", "This is not a cursor")
    return list(values)
