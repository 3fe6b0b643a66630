"""Rows and events of a group of commits that wait to be written, many in each statement.

Every step of SQLite lets go of the interpreter lock, and while the event loop is busy it takes up to 5 ms to get it
back. Row by row, a flooding agent would starve its own journal, and many small commits each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import apsw
import msgspec

from kandev_host import Event, errors, models
from kandev_sqlite.failures import Refused, code, only_added, refusal
from kandev_sqlite.mapper import NAMES, TABLES, Mapper, from_time, mapper
from kandev_sqlite.schema import EVENT_BYTES

STREAMS_KEPT = 10_000
# Few different lengths of statements, so that they stay prepared; apsw prepares those above 16 KiB anew each time.
ROWS_AT_ONCE = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
STATEMENTS_KEPT = 256
INSERT_EVENTS = "INSERT INTO events(seq, id, action, actor, stream, payload, created_at) VALUES "
EVENT_VALUES = "(?,?,?,?,?,?,?)"
# One row, whatever it finds: see above. NULLs are equal to each other here, but not in the index's UNIQUE.
FIND_STREAMS = """
WITH wanted(at, task_id, agent_id, turn_id, board_id, shell_id) AS (VALUES {})
SELECT (SELECT coalesce(max(n), 0) FROM streams), json_group_object(at, n) FROM wanted CROSS JOIN streams AS s
WHERE s.task_id IS wanted.task_id AND s.agent_id IS wanted.agent_id
AND s.turn_id IS wanted.turn_id AND s.board_id IS wanted.board_id AND s.shell_id IS wanted.shell_id
"""
INSERT_STREAMS = "INSERT INTO streams(n, task_id, agent_id, turn_id, board_id, shell_id) VALUES "
STREAM_VALUES = "(?,?,?,?,?,?)"
INSERT_MESSAGE = """
INSERT INTO messages(id, created_at, task_id, agent_id, turn_id, role, text)
SELECT ?1, ?2, ?3, ?4, ?5, 'agent', ?6 WHERE EXISTS (SELECT 1 FROM tasks WHERE id = ?3) ON CONFLICT DO NOTHING
"""

_PLACE = {kind: place for place, kind in enumerate(TABLES)}


class _Result(msgspec.Struct):
    """What is searched of an `acp.result`."""

    summary: str | None = None


_result = msgspec.json.Decoder(_Result)
_found = msgspec.json.Decoder(dict[int, int])
StreamKey = tuple[str | None, str | None, str | None, str | None, str | None]


class Pending:
    """What is not written yet, of the one connection that writes. Raises `Refused` for what cannot be."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.grown_bytes = 0
        self._db = connection
        self._rows: dict[type[models.Row], list[models.Row]] = {}
        self._events: list[tuple[int, Event]] = []
        self._streams: dict[StreamKey, int] = {}
        self._parents = {table: _parents(connection, table) for table in TABLES.values()}

    def put(self, row: models.Row) -> None:
        """Written after what it may refer to: kinds stand in the order of `TABLES`, rows of one in their own."""
        kind = type(row)
        rows = self._rows.get(kind)
        if rows is None:
            if kind is models.AuditRow:
                raise Refused(only_added())
            if any(_PLACE[other] > _PLACE[kind] for other in self._rows):
                self.write_rows()
            rows = self._rows[kind] = []
        rows.append(row)

    def append(self, event: Event, seq: int) -> None:
        self._events.append((seq, event))

    def holds(self, kind: type[models.Row]) -> bool:
        """Whether rows of this kind wait."""
        return kind in self._rows

    def write_rows(self) -> None:
        """Write the rows, so that they can be seen; nothing looks at the events."""
        rows, self._rows = self._rows, {}
        for kind, some in rows.items():
            self._put(mapper(kind), some)

    def write(self) -> None:
        """Write all."""
        self.write_rows()
        events, self._events = self._events, []
        if not events:
            return
        try:
            self._append(events)
        except (UnicodeError, OverflowError, TypeError, ValueError, apsw.TooBigError) as error:
            raise Refused(errors.ValidationFailed("payload", f"This event cannot be stored: {error}")) from error
        for _, item in events:
            self.grown_bytes += len(item.payload) + EVENT_BYTES
            if item.action == "acp.result" and item.task_id is not None:
                self._remember(item)

    def forget(self) -> None:
        """Drop what waits, and what was written and is undone."""
        self._rows, self._events = {}, []
        self._streams.clear()

    def _put(self, table: Mapper[models.Row], rows: list[models.Row]) -> None:
        try:
            for some in _portions([table.encode(row) for row in rows]):
                self._db.execute(table.upsert(len(some)), [value for record in some for value in record])
        except apsw.ConstraintError as error:
            if code(error) == apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
                raise Refused(self._orphaned(table, rows)) from error
            raise Refused(refusal(error, table.name)) from error
        except (UnicodeError, OverflowError, TypeError, ValueError, apsw.TooBigError) as error:
            raise Refused(
                errors.ValidationFailed(table.name, f"This {table.name} cannot be stored: {error}")
            ) from error

    def _orphaned(self, table: Mapper[models.Row], rows: list[models.Row]) -> errors.KandevError:
        """Which row is missing that one of these refers to."""
        for row in rows:
            for field, parent in self._parents[table.table]:
                id = getattr(row, field)
                known = id is None or self._db.execute(f'SELECT 1 FROM "{parent}" WHERE id = ?', (id,)).fetchone()  # noqa: S608
                if not known:
                    return errors.NotFound(NAMES[parent], id)
        return errors.Conflict(f"This {table.name} refers to what another commit removed")

    def _append(self, events: Sequence[tuple[int, Event]]) -> None:
        keys = [(item.task_id, item.agent_id, item.turn_id, item.board_id, item.shell_id) for _, item in events]
        streams = self._numbers(keys)
        # What an agent said at once has one time, and working it out costs as much as the rest of the record.
        times = {at: from_time(at) for at in {item.created_at for _, item in events}}
        records = [
            (seq, one.id, one.action, one.actor, streams[key], str(one.payload, "utf-8"), times[one.created_at])
            for (seq, one), key in zip(events, keys, strict=True)
        ]
        for some in _portions(records):
            self._insert(INSERT_EVENTS, EVENT_VALUES, some)

    def _numbers(self, keys: Sequence[StreamKey]) -> dict[StreamKey, int]:
        """The number of each stream; those that are new get one."""
        streams = self._streams
        unknown = [key for key in dict.fromkeys(keys) if key not in streams]
        if unknown and len(streams) + len(unknown) > STREAMS_KEPT:
            streams.clear()
            unknown = list(dict.fromkeys(keys))
        for some in _portions(unknown):
            marks = ",".join([STREAM_VALUES] * len(some))
            values = [value for at, key in enumerate(some) for value in (at, *key)]
            ((top, text),) = self._db.execute(FIND_STREAMS.format(marks), values)
            found = _found.decode(text)
            streams.update((key, found[at]) for at, key in enumerate(some) if at in found)
            new = [(top + n, *key) for n, key in enumerate((key for key in some if key not in streams), 1)]
            for made in _portions(new):
                self._insert(INSERT_STREAMS, STREAM_VALUES, made)
            streams.update((tuple(key), n) for n, *key in new)
        return streams

    def _insert(self, sql: str, marks: str, records: Sequence[Sequence[Any]]) -> None:
        self._db.execute(sql + ",".join([marks] * len(records)), list(chain.from_iterable(records)))

    def _remember(self, item: Event) -> None:
        """Index the last words of a turn. No trigger, as one on `events` costs two thirds of the speed."""
        try:
            summary = _result.decode(item.payload).summary
        except msgspec.DecodeError:
            return
        if summary:
            values = (item.id, from_time(item.created_at), item.task_id, item.agent_id, item.turn_id, summary)
            self._db.execute(INSERT_MESSAGE, values)


def _portions(records: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """All of them in order, as many at once as one of `ROWS_AT_ONCE`."""
    start = 0
    for size in ROWS_AT_ONCE:
        while len(records) - start >= size:
            yield records[start : start + size]
            start += size


def _parents(connection: apsw.Connection, table: str) -> list[tuple[str, str]]:
    """The fields of this table that refer to another one."""
    rows: list[Any] = connection.execute(f'PRAGMA foreign_key_list("{table}")').fetchall()
    return [(row[3], row[2]) for row in rows]
