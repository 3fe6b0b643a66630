"""The one place that writes: a group of commits in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import apsw
import msgspec

from kandev_host import Commit, Event, Expect, Put, Remove, Shift, Trimmed, errors, models
from kandev_sqlite.failures import Refused, code, failure, refusal
from kandev_sqlite.ladder import pragma
from kandev_sqlite.mapper import NAMES, TABLES, Mapper, from_time, mapper
from kandev_sqlite.query import conditions
from kandev_sqlite.schema import EVENT_BYTES

Outcome = Sequence[int] | errors.KandevError
STREAMS_KEPT = 10_000

HEAD = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)"
GROW = "UPDATE meta SET value = CAST(value AS INTEGER) + ? WHERE key = 'events_bytes'"
TRIM_EVENTS = (
    "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq <= ? ORDER BY seq LIMIT ?) "
    "RETURNING stream, octet_length(payload)"
)
TRIM_STREAM = "DELETE FROM streams WHERE n = ?1 AND NOT EXISTS (SELECT 1 FROM events WHERE stream = ?1)"
TRIM_RECEIPTS = (
    "DELETE FROM receipts WHERE id IN (SELECT id FROM receipts WHERE created_at < ? ORDER BY created_at LIMIT ?)"
)
# Free pages are used again, so few are given back to the file system, and few at a time: up to an eighth stays.
FREE_SHARE = 8
FREE_AT_ONCE_PAGES = 200
INSERT_EVENTS = "INSERT INTO events(seq, id, action, actor, stream, payload, created_at) VALUES "
EVENT_VALUES = "(?, ?, ?, ?, ?, ?, ?)"
# Few different lengths of statements, so that they stay prepared.
ROWS_AT_ONCE = (256, 32, 4, 1)
FIND_STREAM = "SELECT n FROM streams WHERE task_id IS ? AND agent_id IS ? AND turn_id IS ? AND board_id IS ?"
INSERT_STREAM = "INSERT INTO streams(task_id, agent_id, turn_id, board_id) VALUES (?, ?, ?, ?) RETURNING n"
INSERT_MESSAGE = """
INSERT INTO messages(id, created_at, task_id, agent_id, turn_id, role, text)
SELECT ?1, ?2, ?3, ?4, ?5, 'agent', ?6 WHERE EXISTS (SELECT 1 FROM tasks WHERE id = ?3) ON CONFLICT DO NOTHING
"""


class _Result(msgspec.Struct):
    """What is searched of an `acp.result`."""

    summary: str | None = None


_result = msgspec.json.Decoder(_Result)
Record = tuple[int, str, str, str, int, str, int]
StreamKey = tuple[str | None, str | None, str | None, str | None]


class Writer:
    """Writes groups on one connection, always from the same thread."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
        self._streams: dict[StreamKey, int] = {}
        self._grown_bytes = 0
        self._parents = {table: _parents(connection, table) for table in TABLES.values()}

    def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        """One transaction for all; each answers the `seq` of its events, or the error that undid it alone.

        At first without savepoints, since each would make the full-text index write out what it holds; a
        precondition needs none, as it is read before its commit writes. Only when a constraint refuses a commit is
        the group undone and written again with a savepoint around each. Raises a `KandevError` when all failed.
        """
        try:
            try:
                return self._transaction(commits, self._apply)
            except Refused as refused:
                if len(commits) == 1:
                    return [refused.error]
                return self._transaction(commits, self._apply_apart)
        except apsw.Error as error:
            raise failure(error, self._db) from error

    def trim(self, through_seq: int, receipts_before: int | None, limit: int) -> Trimmed:
        """See `Store.trim`. Afterwards, apart, some pages go back to the file system if very many are free."""
        db = self._db
        try:
            with db:
                gone: list[Any] = db.execute(TRIM_EVENTS, (through_seq, limit)).fetchall()
                db.executemany(TRIM_STREAM, {(stream,) for stream, _ in gone})
                if gone:
                    self._streams.clear()
                    db.execute(GROW, (-sum(int(size) for _, size in gone) - EVENT_BYTES * len(gone),))
                receipts = 0
                if receipts_before is not None:
                    db.execute(TRIM_RECEIPTS, (receipts_before, limit))
                    receipts = db.changes()
            if pragma(db, "freelist_count") * FREE_SHARE > pragma(db, "page_count"):
                db.execute(f"PRAGMA incremental_vacuum({FREE_AT_ONCE_PAGES})").fetchall()
        except apsw.Error as error:
            raise failure(error, db) from error
        return Trimmed(len(gone), receipts, max(len(gone), receipts) == limit)

    def _transaction(self, commits: Sequence[Commit], apply: Callable[[Commit, int], Outcome]) -> list[Outcome]:
        db = self._db
        self._grown_bytes = 0
        db.execute("BEGIN IMMEDIATE")
        try:
            head = int(db.execute(HEAD).get)
            outcomes: list[Outcome] = []
            for commit in commits:
                outcome = apply(commit, head)
                outcomes.append(outcome)
                if not isinstance(outcome, errors.KandevError) and outcome:
                    head = outcome[-1]
            if self._grown_bytes:
                db.execute(GROW, (self._grown_bytes,))
            db.execute("COMMIT")
        except BaseException:
            self._streams.clear()
            # Some failures (a full disk, say) have already rolled back by themselves.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return outcomes

    def _apply_apart(self, commit: Commit, head: int) -> Outcome:
        """`_apply`, undone alone when it is refused."""
        self._db.execute("SAVEPOINT apart")
        grown_bytes = self._grown_bytes
        try:
            return self._apply(commit, head)
        except Refused as refused:
            self._streams.clear()
            self._grown_bytes = grown_bytes
            self._db.execute("ROLLBACK TO apart")
            return refused.error
        finally:
            if self._db.in_transaction:
                self._db.execute("RELEASE apart")

    def _apply(self, commit: Commit, head: int) -> Outcome:
        for expect in commit.preconditions:
            if not self._holds(expect):
                return expect.error
        events = [change for change in commit.changes if isinstance(change, Event)]
        if len(events) < len(commit.changes):
            rows = (change for change in commit.changes if not isinstance(change, Event))
            for (what, kind), changes in groupby(rows, _sort):
                if what is Put:
                    self._put(kind, [change.row for change in changes if isinstance(change, Put)])
                elif what is Remove:
                    self._remove(kind, [change.id for change in changes if isinstance(change, Remove)])
                else:
                    for change in changes:
                        if isinstance(change, Shift):
                            self._shift(change)
        if events:
            self._append(events, head)
        return range(head + 1, head + 1 + len(events))

    def _holds(self, expect: Expect) -> bool:
        rows: Mapper[models.Row] = mapper(expect.kind)
        what = "id" if expect.field is None else expect.field
        found = self._db.execute(f'SELECT "{what}" FROM "{rows.table}" WHERE id = ?', (expect.id,)).fetchone()  # noqa: S608
        if found is None:
            return False
        return expect.field is None or found[0] in [rows.fields[what].stored(value) for value in expect.values]

    def _put(self, kind: type[models.Row], rows: list[models.Row]) -> None:
        table: Mapper[models.Row] = mapper(kind)
        try:
            self._db.executemany(table.upsert, map(table.encode, rows))
        except apsw.ConstraintError as error:
            if code(error) == apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
                raise Refused(self._orphaned(table, rows)) from error
            raise Refused(refusal(error, table.name)) from error
        except (UnicodeError, OverflowError, TypeError, ValueError, apsw.TooBigError) as error:
            raise Refused(
                errors.ValidationFailed(table.name, f"This {table.name} cannot be stored: {error}")
            ) from error

    def _remove(self, kind: type[models.Row], ids: list[str]) -> None:
        table: Mapper[models.Row] = mapper(kind)
        self._db.executemany(f'DELETE FROM "{table.table}" WHERE id = ?', [(id,) for id in ids])  # noqa: S608

    def _shift(self, shift: Shift) -> None:
        table: Mapper[models.Row] = mapper(shift.kind)
        chosen, values = conditions(table, shift.where)
        field = table.fields[shift.field].name
        sql = f'UPDATE "{table.table}" SET "{field}" = "{field}" + ? WHERE {chosen}'  # noqa: S608
        try:
            self._db.execute(sql, (shift.by, *values))
        except apsw.ConstraintError as error:
            raise Refused(refusal(error, table.name)) from error

    def _orphaned(self, table: Mapper[models.Row], rows: list[models.Row]) -> errors.KandevError:
        """Which row is missing that one of these refers to."""
        for row in rows:
            for field, parent in self._parents[table.table]:
                id = getattr(row, field)
                known = id is None or self._db.execute(f'SELECT 1 FROM "{parent}" WHERE id = ?', (id,)).fetchone()  # noqa: S608
                if not known:
                    return errors.NotFound(NAMES[parent], id)
        return errors.Conflict(f"This {table.name} refers to what another commit removed")

    def _append(self, events: list[Event], head: int) -> None:
        try:
            self._insert([self._record(item, head + i) for i, item in enumerate(events, 1)])
        except (UnicodeError, OverflowError, TypeError, ValueError, apsw.TooBigError) as error:
            raise Refused(errors.ValidationFailed("payload", f"This event cannot be stored: {error}")) from error
        self._grown_bytes += sum(memoryview(item.payload).nbytes for item in events) + EVENT_BYTES * len(events)
        for item in events:
            if item.action == "acp.result" and item.task_id is not None:
                self._remember(item)

    def _insert(self, records: Sequence[Record]) -> None:
        """Many rows in each statement: every step of SQLite lets go of the interpreter lock, and while the event loop
        is busy it takes up to 5 ms to get it back. Row by row, a flooding agent would starve its own journal.
        """
        start = 0
        for size in ROWS_AT_ONCE:
            sql = INSERT_EVENTS + ", ".join([EVENT_VALUES] * size)
            while len(records) - start >= size:
                self._db.execute(sql, [value for record in records[start : start + size] for value in record])
                start += size

    def _record(self, item: Event, seq: int) -> Record:
        key = (item.task_id, item.agent_id, item.turn_id, item.board_id)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._stream(key)
        return seq, item.id, item.action, item.actor, stream, str(item.payload, "utf-8"), from_time(item.created_at)

    def _stream(self, key: StreamKey) -> int:
        number: int = self._db.execute(FIND_STREAM, key).get or self._db.execute(INSERT_STREAM, key).get
        if len(self._streams) >= STREAMS_KEPT:
            self._streams.clear()
        self._streams[key] = number
        return number

    def _remember(self, item: Event) -> None:
        """Index the last words of a turn. No trigger, as one on `events` costs two thirds of the speed."""
        try:
            summary = _result.decode(item.payload).summary
        except msgspec.DecodeError:
            return
        if summary:
            values = (item.id, from_time(item.created_at), item.task_id, item.agent_id, item.turn_id, summary)
            self._db.execute(INSERT_MESSAGE, values)


def _sort(change: Put | Remove | Shift) -> tuple[type, type[models.Row]]:
    return type(change), type(change.row) if isinstance(change, Put) else change.kind


def _parents(connection: apsw.Connection, table: str) -> list[tuple[str, str]]:
    """The fields of this table that refer to another one."""
    rows: list[Any] = connection.execute(f'PRAGMA foreign_key_list("{table}")').fetchall()
    return [(row[3], row[2]) for row in rows]
