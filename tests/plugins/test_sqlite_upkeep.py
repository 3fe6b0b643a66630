"""The upkeep of SQLite: the contract, and what only a database file can have."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from kandev_host import Environment, StoreReport, errors, event
from kandev_host.testing import StorePlace, UpkeepContract
from kandev_host.testing.upkeep import going_on
from kandev_host.testing.world import a_world, write
from kandev_sqlite import SqliteSettings, open_store, upkeep_of

SETTINGS = SqliteSettings()


@pytest.fixture
def place(tmp_path: Path) -> StorePlace:
    environment = Environment(str(tmp_path), "test")
    return StorePlace(lambda: open_store(SETTINGS, environment), upkeep_of(SETTINGS, environment))


class TestSqliteUpkeep(UpkeepContract):
    pass


@pytest.fixture
async def world(place: StorePlace, anyio_backend: str) -> StorePlace:
    async with place.open() as store:
        await a_world(store)
        for _ in range(5):
            await write(store, event("test", {}))
    return place


def changed(place: StorePlace, folder: Path, *statements: str) -> StoreReport:
    """What is said of a copy that somebody has been at."""
    copy = folder / "changed"
    place.upkeep.back_up(copy, going_on, with_secrets=True)
    db = apsw.Connection(str(copy))
    db.execute("PRAGMA foreign_keys = OFF")
    for statement in statements:
        db.execute(statement)
    db.close()
    return place.upkeep.inspect(going_on, copy=copy)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM events WHERE seq IN (2, 3)", "journal: event 2 is missing"),
        ("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'events'", "beyond the journal's head"),
        ("DELETE FROM boards", "foreign keys: row 1 of columns"),
        ("CREATE TRIGGER mine AFTER INSERT ON tasks BEGIN DELETE FROM users; END", "trigger mine does not belong"),
        ("CREATE VIEW mine AS SELECT 1", "view mine does not belong"),
        ("CREATE TABLE mine (x)", "table mine does not belong"),
        ("DROP TABLE receipts", "receipts is missing"),
        ("DROP TRIGGER tasks_fts_insert", "tasks_fts_insert is missing"),
        ("DELETE FROM meta WHERE key = 'journal_id'", "it has no id"),
    ],
)
def test_a_check_names_what_is_wrong(world: StorePlace, tmp_path: Path, statement: str, problem: str) -> None:
    assert [line for line in changed(world, tmp_path, statement).problems if problem in line]


def test_a_page_that_was_written_over_is_found(world: StorePlace, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    world.upkeep.back_up(copy, going_on)
    content = bytearray(copy.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\x5a" * 64
    copy.write_bytes(content)
    try:
        assert world.upkeep.inspect(going_on, copy=copy).problems
    except errors.Unavailable as error:
        assert "damaged" in error.message  # noqa: PT017


@pytest.mark.parametrize(
    ("statement", "reason"),
    [("PRAGMA application_id = 7", "another program"), ("PRAGMA user_version = 99", "newer kandev-host")],
)
def test_a_database_of_others_is_refused(world: StorePlace, tmp_path: Path, statement: str, reason: str) -> None:
    with pytest.raises(errors.Unavailable, match=reason):
        changed(world, tmp_path, statement)


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Of this process: what is written beyond it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_leaves_neither_a_copy_nor_a_harmed_store(world: StorePlace, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    with file_size_limit(100_000), pytest.raises(errors.StorageFull):
        world.upkeep.back_up(tmp_path / "copy", going_on)
    assert set(tmp_path.iterdir()) == before
    assert world.upkeep.inspect(going_on).problems == []


def test_a_log_that_was_left_is_kept_with_its_database_and_never_read_into_the_next(
    world: StorePlace, tmp_path: Path
) -> None:
    """As after a crash of a database whose log cannot be folded into it."""
    copy, database = tmp_path / "copy", tmp_path / "kandev.db"
    world.upkeep.back_up(copy, going_on)
    database.write_bytes(b"damaged" * 1000)
    (tmp_path / "kandev.db-wal").write_bytes(b"a log" * 1000)
    kept = world.upkeep.replace(copy)
    assert kept is not None
    assert kept.read_bytes() == b"damaged" * 1000
    assert not (tmp_path / "kandev.db-wal").exists()
    assert world.upkeep.inspect(going_on).problems == []
