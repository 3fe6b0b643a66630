from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest

import kandev_sqlite
from kandev_host import Environment, Put, Store, errors, event, models
from kandev_host.testing import StoreContract
from kandev_host.testing.audit import KEY, ROWS, added
from kandev_host.testing.world import BOARD, USER, a_task, a_world, write
from kandev_sqlite import SqliteSettings, open_store
from kandev_sqlite.ladder import migrate
from kandev_sqlite.mapper import TABLES
from kandev_sqlite.schema import STEPS


class TestSqlite(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with open_store(SqliteSettings(), Environment(str(tmp_path), "test")) as store:
            yield store


def environment(folder: Path) -> Environment:
    return Environment(str(folder), "test")


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.anyio
async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        await a_world(store)
        await write(store, event("test", {}))
        before = await store.journal_state()
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        assert await store.get(models.Board, BOARD.id) == BOARD
        assert await store.journal_state() == before


@pytest.mark.anyio
async def test_every_file_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "kandev.db").touch(0o644)
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        await write(store, event("test", {}))
        assert modes(tmp_path) == {"kandev.db": 0o600, "kandev.db-wal": 0o600, "kandev.db-shm": 0o600}


@pytest.mark.anyio
async def test_the_settings_choose_the_file(tmp_path: Path) -> None:
    async with open_store(SqliteSettings(path=str(tmp_path / "mine.sqlite")), environment(tmp_path)):
        assert (tmp_path / "mine.sqlite").exists()


def test_every_kind_of_row_has_a_table() -> None:
    assert set(TABLES) == set(models.ROWS)


@pytest.mark.anyio
async def test_a_query_beyond_its_time_is_interrupted(tmp_path: Path) -> None:
    async with open_store(SqliteSettings(read_timeout_s=0.001), environment(tmp_path)) as store:
        tasks = [a_task(description="all the same words " * 50) for _ in range(2000)]
        await write(store, Put(USER), Put(BOARD), *map(Put, tasks))
        with pytest.raises(errors.TimedOut):
            await store.search("same words")
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        assert len(await store.search("same words")) == 20


@pytest.mark.anyio
async def test_rows_that_are_asked_for_at_once_are_each_its_askers_own(tmp_path: Path) -> None:
    tasks = [a_task(title=f"T{number}") for number in range(20)]
    strange = ["", "nobody", f"{tasks[0].id}\0more", "\ud800", "?", '"', "[", "é"]
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        await write(store, Put(USER), Put(BOARD), *map(Put, tasks))
        wanted = [*tasks, *tasks[:5]]
        async with asyncio.TaskGroup() as group:
            found = [group.create_task(store.get(models.Task, task.id)) for task in wanted]
            boards = [group.create_task(store.get(models.Board, id)) for id in (BOARD.id, tasks[0].id)]
            nothing = [group.create_task(store.get(models.Task, id)) for id in strange]
        assert [task.result() for task in found] == wanted
        assert [task.result() for task in boards] == [BOARD, None]
        assert {task.result() for task in nothing} == {None}


@pytest.mark.anyio
async def test_who_gives_up_a_row_takes_it_from_nobody_else(tmp_path: Path) -> None:
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        await a_world(store)
        loop = asyncio.get_running_loop()
        for when in ("before", "after"):  # the query is asked
            waiting, leaving = (loop.create_task(store.get(models.Board, BOARD.id)) for _ in range(2))
            for _ in range(1 if when == "before" else 2):
                await asyncio.sleep(0)
            leaving.cancel()
            assert await waiting == BOARD
            with pytest.raises(asyncio.CancelledError):
                await leaving


@pytest.mark.anyio
async def test_rows_that_cannot_be_read_are_an_error_for_all_who_asked(tmp_path: Path) -> None:
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        await a_world(store)
        with closing(apsw.Connection(str(tmp_path / "kandev.db"))) as other:
            other.execute("ALTER TABLE boards RENAME TO lost")
        asked = await asyncio.gather(*(store.get(models.Board, id) for id in ("a", "b")), return_exceptions=True)
        assert [isinstance(error, errors.KandevError) for error in asked] == [True, True]
        assert await store.get(models.User, USER.id) == USER


def test_without_apsw_the_provider_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kandev_sqlite, "find_spec", lambda _name: None)
    (provider,) = kandev_sqlite.kandev_stores()
    assert provider.missing == "kandev-host[sqlite]"


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="pth"):
        msgspec.convert({"pth": "x"}, SqliteSettings)


@pytest.mark.anyio
async def test_no_statistics_are_kept_that_would_be_of_smaller_tables(tmp_path: Path) -> None:
    """With them, inserts into a full-text index take ever longer."""
    path = tmp_path / "kandev.db"
    connection = apsw.Connection(str(path))
    migrate(connection, path, STEPS[:1])
    connection.execute("INSERT INTO meta VALUES ('journal_id', 'j'); ANALYZE")
    connection.close()
    for _ in range(2):
        async with open_store(SqliteSettings(), environment(tmp_path)) as store:
            await a_world(store)
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_stat%'").fetchall() == []
    connection.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET actor = 'mallory' WHERE seq = 1",
        "UPDATE OR REPLACE audit SET seq = 1 WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 1",
        "INSERT OR REPLACE INTO audit(seq, id, created_at, kind, action, outcome, actor, details, key_id, prev, mac)"
        " SELECT 5, id, created_at, kind, action, outcome, actor, details, key_id, prev, mac FROM audit WHERE seq = 1",
    ],
)
async def test_the_database_itself_only_adds_to_the_audit(tmp_path: Path, sql: str) -> None:
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        await write(store, *added(*ROWS))
        before = await store.find(models.AuditRow, order=("seq",))
        db = apsw.Connection(str(tmp_path / "kandev.db"))
        with pytest.raises(apsw.ConstraintError, match="only added to"):
            db.execute(sql).fetchall()
        db.close()
        assert await store.find(models.AuditRow, order=("seq",)) == before


@pytest.mark.anyio
@pytest.mark.parametrize("field", ["created_at = 9000000000000000000", "details = '{'", "details = '[]'", "kind = 'x'"])
async def test_a_row_of_the_audit_that_was_damaged_is_read_and_is_bad(tmp_path: Path, field: str) -> None:
    async with open_store(SqliteSettings(), environment(tmp_path)) as store:
        await write(store, *added(*ROWS))
        db = apsw.Connection(str(tmp_path / "kandev.db"))
        db.execute(f"DROP TRIGGER audit_update; UPDATE audit SET {field} WHERE seq = 2").fetchall()
        db.close()
        rows = (await store.find(models.AuditRow, order=("seq",))).rows
        assert [row.mac == models.mac_of(row, KEY) for row in rows] == [True, False, True, True]
