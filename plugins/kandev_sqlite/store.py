"""The Store on SQLite: one writer thread, a few reader threads, the event loop never blocked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread
import apsw

from kandev_host import Commit, Event, Hit, JournalState, Page, Trimmed, UsageGroup, UsageSum, errors, models
from kandev_sqlite import replay, sums
from kandev_sqlite.failures import failure, startup_failure
from kandev_sqlite.ladder import migrate, pragma, private_file
from kandev_sqlite.lookups import Lookups
from kandev_sqlite.mapper import from_time, mapper, utf8
from kandev_sqlite.pending import STATEMENTS_KEPT
from kandev_sqlite.query import Where, conditions, cursor_at, key_of, select
from kandev_sqlite.text import search
from kandev_sqlite.worker import Workers
from kandev_sqlite.writer import HEAD, Writer

if TYPE_CHECKING:
    from kandev_sqlite import SqliteSettings

R = TypeVar("R", bound=models.Row)
T = TypeVar("T")
LIMIT_ROWS = 10_000

# `trusted_schema`: a crafted database file must not run functions. `query_only` guards the readers.
_COMMON = "PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF"
WRITER = "PRAGMA wal_autocheckpoint = {pages}; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16000"
READER = "PRAGMA query_only = ON"


class SqliteStore:
    """See `Store`. Made by `open`; `close` it when done."""

    def __init__(self, writer: Workers, writing: Writer, readers: Workers, read_timeout_s: float) -> None:
        self._writer = writer
        self._writing = writing
        self._readers = readers
        self._lookups = Lookups(readers, read_timeout_s)
        self._read_timeout_s = read_timeout_s

    @classmethod
    async def open(cls, path: Path, settings: SqliteSettings, version: str) -> SqliteStore:
        """Open, and first make or migrate, the database. Raises `StartupError` with the fix when that cannot be."""

        def opened() -> tuple[apsw.Connection, Writer, list[apsw.Connection]]:
            try:
                writer = _writer_connection(path, settings, version)
                return (
                    writer,
                    Writer(writer),
                    [_connect(path, settings, READER) for _ in range(settings.reader_threads)],
                )
            except apsw.Error as error:
                raise startup_failure(error, path) from error
            except OSError as error:
                raise errors.StartupError(
                    f"Cannot open the database {path} ({error.strerror}): make its folder and let only yourself in, or"
                    " choose another store.sqlite.path"
                ) from error

        connection, writing, reading = await anyio.to_thread.run_sync(opened)
        readers, writer = Workers("sqlite-reader", reading), Workers("sqlite-writer", [connection])
        return cls(writer, writing, readers, settings.read_timeout_s)

    async def close(self) -> None:
        """Finish what runs. The writer goes last and folds the log into the database file."""
        await self._readers.close()
        await self._writer.close()

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Sequence[int] | errors.KandevError]:
        return await self._writer.submit(lambda _: self._writing.commit(commits))

    async def get(self, kind: type[R], id: str) -> R | None:
        return await self._lookups.get(kind, id)

    async def find(
        self,
        kind: type[R],
        where: Where = (),
        *,
        order: Sequence[str] = ("created_at", "id"),
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[R]:
        table, key = mapper(kind), key_of(mapper(kind), order)
        limit = _bounded(limit)
        sql, values = select(table, where, key, limit, cursor)

        def read(db: apsw.Connection) -> list[R]:
            return [table.decode(row) for row in db.execute(sql, values)]

        rows = await self._read(read)
        if len(rows) <= limit:
            return Page(rows)
        return Page(rows[:limit], cursor_at(table, key, rows[limit - 1]))

    async def count(self, kind: type[models.Row], where: Where = ()) -> int:
        table = mapper(kind)
        chosen, values = conditions(table, where)
        sql = f'SELECT count(*) FROM "{table.table}" WHERE {chosen}'  # noqa: S608
        return await self._read(lambda db: int(db.execute(sql, values).get))

    async def usage_sums(
        self, where: Where = (), *, group_by: UsageGroup | None = None, limit: int = 100
    ) -> list[UsageSum]:
        statement = sums.statement(where, group_by, _bounded(limit))
        return await self._read(lambda db: sums.usage_sums(db, statement))

    async def events(
        self,
        after_seq: int,
        *,
        topics: Sequence[str] = ("*",),
        limit: int = 500,
        limit_bytes: int | None = None,
        action_prefix: str = "",
    ) -> list[Event]:
        start = max(0, min(after_seq, replay.MAX_SEQ))
        wanted = [utf8(topic) for topic in topics]
        how = (_bounded(limit), utf8(action_prefix), limit_bytes)
        return await self._read(lambda db: replay.events(db, start, wanted, *how))

    async def expired(self, *, before: datetime | None = None, limit_bytes: int | None = None, limit: int = 500) -> int:
        limit_at = None if before is None else from_time(before)
        return await self._read(lambda db: replay.expired(db, limit_at, limit_bytes, _bounded(limit)))

    async def trim(self, through_seq: int, *, receipts_before: datetime | None = None, limit: int = 500) -> Trimmed:
        at = None if receipts_before is None else from_time(receipts_before)
        return await self._writer.submit(lambda _: self._writing.trim(through_seq, at, _bounded(limit)))

    async def journal_state(self) -> JournalState:
        return await self._read(_journal_state)

    async def search(
        self, text: str, *, kinds: Sequence[str] = (), task_id: str | None = None, limit: int = 20
    ) -> list[Hit]:
        task = None if task_id is None else utf8(task_id)
        return await self._read(lambda db: search(db, text, kinds, task, _bounded(limit)))

    async def _read(self, query: Callable[[apsw.Connection], T]) -> T:
        def run(db: apsw.Connection) -> T:
            try:
                return query(db)
            except apsw.Error as error:
                raise failure(error, db) from error

        return await self._readers.query(run, self._read_timeout_s)


def _connect(path: Path, settings: SqliteSettings, pragmas: str) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=STATEMENTS_KEPT)
    configure(connection, settings, pragmas)
    sums.add_functions(connection)
    return connection


def configure(connection: apsw.Connection, settings: SqliteSettings, pragmas: str) -> None:
    """What every connection gets, readers and writer."""
    connection.set_busy_timeout(round(settings.busy_timeout_s * 1000))
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.execute(f"{_COMMON}; {pragmas}").fetchall()


def _writer_connection(path: Path, settings: SqliteSettings, version: str) -> apsw.Connection:
    private_file(path)
    connection = _connect(path, settings, WRITER.format(pages=settings.wal_limit_pages))
    try:
        # What is trimmed can then be given back in small pieces, without a VACUUM of the whole file.
        if pragma(connection, "page_count") == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
        migrate(connection, path)
        mode = connection.execute("PRAGMA journal_mode = WAL").get
        if mode != "wal":
            raise errors.StartupError(
                f"The file system of {path} cannot hold a database with a write-ahead log (a network share?);"
                " choose a local path in store.sqlite.path"
            )
        # No ANALYZE, here or later: statistics of tables that have grown since made inserts into a full-text index nine
        # times as slow (measured at 200,000 rows), and the lists find their indexes without (tests/plugins).
        connection.execute("INSERT INTO meta VALUES ('journal_id', ?) ON CONFLICT DO NOTHING", (models.new_id(),))
        connection.execute(
            "INSERT INTO meta VALUES ('version', ?) ON CONFLICT DO UPDATE SET value = excluded.value", (version,)
        )
    except BaseException:
        connection.close()
        raise
    return connection


def _journal_state(db: apsw.Connection) -> JournalState:
    # One transaction, so that the three belong together.
    with db:
        journal_id = db.execute("SELECT value FROM meta WHERE key = 'journal_id'").get
        head = int(db.execute(HEAD).get)
        oldest = db.execute("SELECT min(seq) FROM events").get
    return JournalState(journal_id, head, head + 1 if oldest is None else oldest)


def _bounded(limit: int) -> int:
    return max(1, min(limit, LIMIT_ROWS))
