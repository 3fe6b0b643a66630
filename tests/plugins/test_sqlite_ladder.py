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

from kandev_host import Environment, errors
from kandev_sqlite import SqliteSettings, open_store
from kandev_sqlite.ladder import climb, migrate
from kandev_sqlite.schema import STEPS

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


def test_kill_9_before_each_statement_leaves_a_whole_version_and_the_next_start_goes_on(tmp_path: Path) -> None:
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
async def test_a_newer_database_is_refused_with_both_versions_and_the_fix(tmp_path: Path) -> None:
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
