"""The one place that writes: a group of commits in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw

from kandev_host import Append, Commit, Event, Expect, Put, Remove, Shift, Trimmed, errors, models
from kandev_sqlite.failures import Refused, failure, only_added, refusal
from kandev_sqlite.ladder import pragma
from kandev_sqlite.mapper import Mapper, mapper
from kandev_sqlite.pending import Pending
from kandev_sqlite.query import conditions
from kandev_sqlite.schema import EVENT_BYTES

Outcome = Sequence[int] | errors.KandevError

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
LAST_AUDIT = "SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1"
# Free pages are used again, so few are given back to the file system, and few at a time: up to an eighth stays.
FREE_SHARE = 8
FREE_AT_ONCE_PAGES = 200


class Writer:
    """Writes groups on one connection, always from the same thread."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
        self._pending = Pending(connection)

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
                    self._pending.forget()
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
        db, pending = self._db, self._pending
        pending.grown_bytes = 0
        db.execute("BEGIN IMMEDIATE")
        try:
            head = int(db.execute(HEAD).get)
            outcomes: list[Outcome] = []
            for commit in commits:
                outcome = apply(commit, head)
                outcomes.append(outcome)
                if not isinstance(outcome, errors.KandevError) and outcome:
                    head = outcome[-1]
            pending.write()
            if pending.grown_bytes:
                db.execute(GROW, (pending.grown_bytes,))
            db.execute("COMMIT")
        except BaseException:
            pending.forget()
            # Some failures (a full disk, say) have already rolled back by themselves.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return outcomes

    def _apply_apart(self, commit: Commit, head: int) -> Outcome:
        """`_apply`, written at once, and undone alone when it is refused."""
        self._db.execute("SAVEPOINT apart")
        grown_bytes = self._pending.grown_bytes
        try:
            outcome = self._apply(commit, head)
            self._pending.write()
            return outcome
        except Refused as refused:
            self._pending.forget()
            self._pending.grown_bytes = grown_bytes
            self._db.execute("ROLLBACK TO apart")
            return refused.error
        finally:
            if self._db.in_transaction:
                self._db.execute("RELEASE apart")

    def _apply(self, commit: Commit, head: int) -> Outcome:
        """Rows and events wait until something must see them, or the end of the group."""
        pending = self._pending
        for expect in commit.preconditions:
            if not self._holds(expect):
                return expect.error
        seq = head
        for change in commit.changes:
            if isinstance(change, Event):
                seq += 1
                pending.append(change, seq)
            elif isinstance(change, Put):
                pending.put(change.row)
            elif isinstance(change, Append):
                self._append(change)
            else:
                pending.write_rows()
                if change.kind is models.AuditRow:
                    raise Refused(only_added())
                if isinstance(change, Remove):
                    self._remove(change)
                else:
                    self._shift(change)
        return range(head + 1, seq + 1)

    def _append(self, change: Append) -> None:
        """At once: the chain is that of what is written, and a commit that is undone takes its links with it."""
        table = mapper(models.AuditRow)
        seq, mac = self._db.execute(LAST_AUDIT).fetchone() or (0, "")
        try:
            self._db.execute(table.insert(), table.encode(models.chained(change.row, change.key, seq=seq, mac=mac)))
        except apsw.ConstraintError as error:
            raise Refused(refusal(error, table.name)) from error
        except (UnicodeError, OverflowError, TypeError, ValueError, apsw.TooBigError) as error:
            raise Refused(errors.ValidationFailed(table.name, f"This cannot be audited: {error}")) from error

    def _holds(self, expect: Expect) -> bool:
        if self._pending.holds(expect.kind):
            self._pending.write_rows()
        rows: Mapper[models.Row] = mapper(expect.kind)
        what = "id" if expect.field is None else expect.field
        found = self._db.execute(f'SELECT "{what}" FROM "{rows.table}" WHERE id = ?', (expect.id,)).fetchone()  # noqa: S608
        if found is None:
            return False
        return expect.field is None or found[0] in [rows.fields[what].stored(value) for value in expect.values]

    def _remove(self, remove: Remove) -> None:
        table: Mapper[models.Row] = mapper(remove.kind)
        self._db.execute(f'DELETE FROM "{table.table}" WHERE id = ?', (remove.id,))  # noqa: S608

    def _shift(self, shift: Shift) -> None:
        table: Mapper[models.Row] = mapper(shift.kind)
        chosen, values = conditions(table, shift.where)
        field = table.fields[shift.field].name
        sql = f'UPDATE "{table.table}" SET "{field}" = "{field}" + ? WHERE {chosen}'  # noqa: S608
        try:
            self._db.execute(sql, (shift.by, *values))
        except apsw.ConstraintError as error:
            raise Refused(refusal(error, table.name)) from error
