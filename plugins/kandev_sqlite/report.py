"""What is wrong with a database: its pages, its references, its schema, its journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from kandev_host import StoreReport, errors
from kandev_sqlite.ladder import pragma
from kandev_sqlite.mapper import TABLES
from kandev_sqlite.schema import APPLICATION_ID, STEPS
from kandev_sqlite.writer import HEAD

TOLD = 20
# Triggers and views run; of tables and indexes the text depends on the version of SQLite that altered them.
_OBJECTS = "SELECT type, name, tbl_name, iif(type IN ('trigger', 'view'), sql, '') FROM sqlite_schema"
_HOLES = (
    "SELECT seq + 1 FROM events AS e WHERE seq < (SELECT max(seq) FROM events)"
    " AND NOT EXISTS (SELECT 1 FROM events WHERE seq = e.seq + 1) LIMIT ?"
)


def report(db: apsw.Connection, path: Path) -> StoreReport:
    """Of what the connection sees now. Raises `Unavailable` for a database that is no host's, or a newer one's."""
    version = pragma(db, "user_version")
    if pragma(db, "application_id") != APPLICATION_ID or version < 1:
        raise errors.Unavailable(f"{path.name} is a database of another program", fix="name a backup of kandev-host")
    if version > len(STEPS):
        raise errors.Unavailable(
            f"{path.name} has schema version {version}, made by a newer kandev-host; this one knows up to {len(STEPS)}",
            fix="upgrade kandev-host",
        )
    db.execute("BEGIN")
    try:
        # What is not there as it should be is not asked anything.
        problems = list(_schema(db, version)) or [*_pages(db), *_references(db), *_journal(db)]
        counts = _counts(db)
        oldest, head = (db.execute("SELECT min(seq) FROM events").get, int(db.execute(HEAD).get)) if counts else (0, 0)
        journal_id = str(db.execute("SELECT value FROM meta WHERE key = 'journal_id'").get or "") if counts else ""
    finally:
        db.execute("ROLLBACK")
    log = Path(f"{path}-wal")
    return StoreReport(
        schema_version=version,
        known_version=len(STEPS),
        journal_id=journal_id,
        head=head,
        oldest=head + 1 if oldest is None else oldest,
        size_bytes=path.stat().st_size,
        log_bytes=log.stat().st_size if log.exists() else 0,
        counts=counts,
        problems=problems,
    )


def _schema(db: apsw.Connection, version: int) -> Iterator[str]:
    """Against the schema of that version: a trigger or view that somebody added would run when the host writes."""
    with made(version) as model:
        wanted = set(model.execute(_OBJECTS))
    found = set(db.execute(_OBJECTS))
    yield from (f"schema: {kind} {name} is missing or another" for kind, name, *_ in sorted(wanted - found)[:TOLD])
    yield from (f"schema: {kind} {name} does not belong there" for kind, name, *_ in sorted(found - wanted)[:TOLD])


@contextmanager
def made(version: int) -> Iterator[apsw.Connection]:
    """An empty database of that version, in memory."""
    model = apsw.Connection(":memory:")
    try:
        model.execute("PRAGMA foreign_keys = OFF")
        for step in STEPS[:version]:
            model.execute(step)
        yield model
    finally:
        model.close()


def _pages(db: apsw.Connection) -> Iterator[str]:
    yield from (f"integrity: {line}" for (line,) in db.execute(f"PRAGMA integrity_check({TOLD})") if line != "ok")


def _references(db: apsw.Connection) -> Iterator[str]:
    for number, (table, row, parent, _) in enumerate(db.execute("PRAGMA foreign_key_check")):
        if number == TOLD:
            yield "foreign keys: more of the same"
            return
        yield f"foreign keys: row {row} of {table} refers to a row that {parent} does not have"


def _journal(db: apsw.Connection) -> Iterator[str]:
    yield from (f"journal: event {seq} is missing" for (seq,) in db.execute(_HOLES, (TOLD,)))
    newest = db.execute("SELECT max(seq) FROM events").get
    if newest is not None and newest > int(db.execute(HEAD).get):
        yield f"journal: event {newest} is beyond the journal's head"
    if not db.execute("SELECT value FROM meta WHERE key = 'journal_id'").get:
        yield "journal: it has no id"


def _counts(db: apsw.Connection) -> dict[str, int]:
    there = {name for (name,) in db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'")}
    if not {"meta", "events", "sqlite_sequence"} <= there:
        return {}
    wanted = [table for table in (*TABLES.values(), "events") if table in there]
    return {table: int(db.execute(f'SELECT count(*) FROM "{table}"').get) for table in wanted}  # noqa: S608
