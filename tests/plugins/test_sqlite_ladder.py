"""Migrations are atomic and restartable; a newer database is refused (reliability: P22)."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from kandev_host import Environment, JournalState, errors, models
from kandev_sqlite import SqliteSettings, open_store
from kandev_sqlite.ladder import climb, migrate
from kandev_sqlite.schema import EVENT_BYTES, STEPS

ONE = "CREATE TABLE colours (id TEXT PRIMARY KEY, name TEXT) STRICT; INSERT INTO colours VALUES ('1', 'red')"
TWO = "ALTER TABLE colours ADD COLUMN hue INTEGER; UPDATE colours SET hue = 7; CREATE INDEX hues ON colours(hue)"
THREE = "CREATE TABLE shades (id TEXT PRIMARY KEY, colour TEXT REFERENCES colours(id)) STRICT; INSERT INTO shades VALUES ('a', '1')"  # noqa: E501  # fmt: skip
LADDER = (ONE, TWO, THREE)

KILLED = """
import os, signal, sys
from pathlib import Path
import apsw
from kandev_sqlite.ladder import migrate
path, moment, *steps = sys.argv[1:]
connection = apsw.Connection(path)
left = int(moment)
def die_in_time(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return True
connection.exec_trace = die_in_time
migrate(connection, Path(path), steps)
"""


def opened(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


def version(connection: apsw.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").get)


def shape(connection: apsw.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'")}


def kill_at(path: Path, moment: int, steps: tuple[str, ...]) -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", KILLED, path, str(moment), *steps], check=False, env=environment
    ).returncode


def test_p22_kill_9_before_each_statement_leaves_a_whole_version_and_the_next_start_goes_on(tmp_path: Path) -> None:
    shapes: dict[int, set[str]] = {0: set(), 1: {"colours"}, 2: {"colours", "hues"}, 3: {"colours", "hues", "shades"}}
    finished = False
    for moment in range(4, 40, 3):
        path = tmp_path / f"{moment}.db"
        connection = opened(path)
        migrate(connection, path, LADDER[:1])
        connection.close()
        code = kill_at(path, moment, LADDER)
        connection = opened(path)
        assert shape(connection) == shapes[version(connection)]
        migrate(connection, path, LADDER)
        assert version(connection) == 3
        assert connection.execute("SELECT name, hue FROM colours").get == ("red", 7)
        connection.close()
        finished = code == 0
        assert finished or code == -signal.SIGKILL
        if finished:
            break
    assert finished


V1_ROWS = """
INSERT INTO users VALUES ('u', 1, 'ada@example.org', 'ada', NULL, 1);
INSERT INTO boards VALUES ('b', 1, 'Inbox', NULL, 'u', 1, 1);
INSERT INTO tasks(id, created_at, board_id, position, title, description, state, priority, blocked_by, metadata,
    version, created_by, updated_at) VALUES ('t', 1, 'b', 0, 'Fix the login', '', 'TODO', 0, '[]', '{}', 1, 'u', 1);
INSERT INTO agent_instances(id, created_at, task_id, agent_type, runtime, status, orchestrated, resource_limits,
    updated_at) VALUES ('a', 1, 't', 'demo', 'bwrap', 'RUNNING', 1, '{}', 1);
INSERT INTO meta VALUES ('journal_id', 'j');
INSERT INTO streams VALUES (1, 'b', 't', NULL, NULL);
INSERT INTO events VALUES (7, 'e', 'task.created', 'u', 1, '{"task": 1}', 1), (8, 'f', 'x', 'u', 1, '{}', 1);
"""
V1_TABLES = ("users", "boards", "tasks", "streams", "events")


def version_1(path: Path) -> apsw.Connection:
    """A database as version 1 of the schema leaves it, with something in it."""
    connection = opened(path)
    migrate(connection, path, STEPS[:1])
    connection.execute(V1_ROWS)
    return connection


def columns(connection: apsw.Connection) -> dict[str, str]:
    """What each table has; a later version adds some."""
    return {
        table: ", ".join(name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)))
        for table in V1_TABLES
    }


def content(connection: apsw.Connection, held: dict[str, str]) -> dict[str, list[object]]:
    return {table: list(connection.execute(f"SELECT {names} FROM {table}")) for table, names in held.items()}


def test_p22_kill_9_on_the_way_from_version_1_to_2_leaves_one_of_them_whole(tmp_path: Path) -> None:
    """At every second statement of the released migration, with rows in the database."""
    connection = version_1(tmp_path / "one.db")
    held = columns(connection)
    before, shapes = content(connection, held), {1: shape(connection)}
    connection.close()
    connection = opened(tmp_path / "two.db")
    migrate(connection, tmp_path / "two.db", STEPS[:2])
    shapes[2] = shape(connection)
    connection.close()
    codes = []
    for moment in range(6, 200, 2):
        path = tmp_path / f"{moment}.db"
        version_1(path).close()
        codes.append(kill_at(path, moment, STEPS[:2]))
        connection = opened(path)
        assert shape(connection) == shapes[version(connection)]
        assert content(connection, held) == before
        migrate(connection, path, STEPS[:2])
        assert (version(connection), content(connection, held)) == (2, before)
        assert connection.execute("SELECT attempt, failure FROM agent_instances").get == (1, None)
        assert int(connection.execute("SELECT value FROM meta WHERE key = 'events_bytes'").get) == 13 + 2 * EVENT_BYTES
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        connection.close()
        if codes[-1] == 0:
            break
    assert codes[-1] == 0
    assert codes[:-1] == [-signal.SIGKILL] * (len(codes) - 1)
    assert len(codes) > 10


@pytest.mark.anyio
async def test_p22_what_version_1_held_is_read_after_the_migration(tmp_path: Path) -> None:
    version_1(tmp_path / "kandev.db").close()
    async with open_store(SqliteSettings(), Environment(str(tmp_path), "test")) as store:
        task = await store.get(models.Task, "t")
        assert task is not None
        assert task.title == "Fix the login"
        assert [hit.id for hit in await store.search("login")] == ["t"]
        assert await store.journal_state() == JournalState("j", 8, 7)
        assert await store.expired(limit_bytes=EVENT_BYTES + 2) == 7


def test_a_database_is_backed_up_before_it_climbs(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = opened(path)
    migrate(connection, path, LADDER[:1])
    connection.execute("UPDATE colours SET name = 'blue'")
    migrate(connection, path, LADDER)
    connection.close()
    backup = tmp_path / "x.db.backup-v1"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    copy = apsw.Connection(str(backup))
    assert version(copy) == 1
    assert copy.execute("SELECT * FROM colours").get == ("1", "blue")
    copy.close()


def test_a_new_database_needs_no_backup(tmp_path: Path) -> None:
    connection = opened(tmp_path / "x.db")
    migrate(connection, tmp_path / "x.db", LADDER)
    connection.close()
    assert [path.name for path in tmp_path.glob("*backup*")] == []


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = opened(path)
    migrate(connection, path, LADDER[:1])
    with pytest.raises(apsw.SQLError):
        migrate(connection, path, (ONE, TWO + "; NONSENSE"))
    assert version(connection) == 1
    assert shape(connection) == {"colours"}
    connection.close()


def test_a_step_that_would_orphan_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = opened(path)
    migrate(connection, path, LADDER)
    with pytest.raises(errors.StartupError, match="shades"):
        migrate(connection, path, (*LADDER, "DELETE FROM colours"))
    assert version(connection) == 3
    connection.close()


def test_a_step_that_another_process_took_meanwhile_is_not_taken_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    first, second = opened(path), opened(path)
    migrate(first, path, LADDER)
    climb(second, 2, TWO)
    assert version(second) == 3
    first.close()
    second.close()


@pytest.mark.anyio
async def test_p22_a_newer_database_is_refused_with_both_versions_and_the_fix(tmp_path: Path) -> None:
    newer = len(STEPS) + 5
    async with open_store(SqliteSettings(), Environment(str(tmp_path), "test")):
        pass
    connection = apsw.Connection(str(tmp_path / "kandev.db"))
    connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    with pytest.raises(errors.StartupError, match=rf"version {newer}.*up to {len(STEPS)}\. Upgrade kandev-host"):
        async with open_store(SqliteSettings(), Environment(str(tmp_path), "test")):
            pass


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        ("CREATE TABLE theirs (x)", "another program"),
        (b"not a database at all, but long enough" * 100, "not a SQLite database"),
        (None, "make its folder"),
    ],
)
async def test_a_file_that_is_not_ours_is_refused_untouched(
    tmp_path: Path, make: str | bytes | None, reason: str
) -> None:
    path = tmp_path / "kandev.db"
    if isinstance(make, str):
        connection = apsw.Connection(str(path))
        connection.execute(make)
        connection.close()
    elif make is None:
        path = tmp_path / "missing" / "kandev.db"
    else:
        path.write_bytes(make)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(errors.StartupError, match=reason):
        async with open_store(SqliteSettings(path=str(path)), Environment(str(tmp_path), "test")):
            pass
    assert (path.read_bytes() if path.exists() else None) == before
