"""The writer of the audit: what is counted, where the chain stands, and what lies beside the database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_host.audit.key import HEAD_FILE, KEY_FILE, load_key, read_head, read_key, write_head
from kandev_host.audit.log import BEGAN, MISSING, WAITING, AuditLog
from kandev_host.audit.tally import SORTS, WINDOW_S, Tally
from kandev_host.audit.verify import Verifier
from kandev_host.bus import MemoryBus
from kandev_host.errors import StartupError, StorageFull
from kandev_host.events import event
from kandev_host.interfaces import Change, Environment, Store
from kandev_host.journal import Journal
from kandev_host.models import AuditRow, key_id_of
from kandev_host.secrets import known, register
from kandev_sqlite import SqliteSettings, open_store

pytestmark = pytest.mark.anyio

HERE = "127.0.0.1"


def failed(address: str) -> AuditRow:
    return AuditRow(kind="auth", action="auth.login", outcome="failed", actor="unknown", address=address)


class Clock:
    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(SqliteSettings(), Environment(str(tmp_path), "0")) as store:
        yield store


async def lived(folder: Path, store: Store, *rows: AuditRow) -> None:
    """A host that starts, writes these and stops."""
    audit = AuditLog.of_folder(folder)
    await audit.look(store)
    async with Journal(store, MemoryBus(), audit=audit) as journal, audit.standing(journal, store):
        await audit.write(*rows)


async def test_only_who_begins_a_new_chain_warns_of_it(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await lived(tmp_path, store)
    head = read_head(tmp_path)
    assert head is not None
    write_head(tmp_path, replace(head, journal_id="another"), load_key(tmp_path))  # as after a restore
    await AuditLog.of_folder(tmp_path).look(store)
    assert "new chain" not in caplog.text
    await lived(tmp_path, store)
    assert caplog.text.count("new chain: another history") == 1


async def rows_of(store: Store) -> list[AuditRow]:
    return (await store.find(AuditRow, order=("seq",), limit=1000)).rows


async def holds(folder: Path, store: Store) -> bool:
    key = load_key(folder)
    verifier = Verifier({key_id_of(key): key}, read_head(folder))
    for row in await rows_of(store):
        verifier.add(row)
    return verifier.verdict().problem is None


# --- counting ---------------------------------------------------------------------------------------------------------


def test_a_flood_of_failed_log_ins_is_a_few_rows_that_count_them_all() -> None:
    clock = Clock()
    tally, rows = Tally(clock), list[AuditRow]()
    for n in range(20_000):
        rows += [row for row in [tally.add(failed(f"10.0.{n % 500 // 256}.{n % 256}"))] if row is not None]
    clock.at_s = WINDOW_S
    rows += tally.due()
    assert len(rows) <= 2 * (SORTS + 1)
    assert sum(row.details.get("count", 1) for row in rows) == 20_000
    assert tally.due(everything=True) == []


def test_who_makes_many_sorts_of_rows_hides_nobody_elses() -> None:
    def entered(who: str, by: int) -> AuditRow:
        return AuditRow(
            kind="auth", action="auth.login", actor=who, address=HERE, details={"credential": f"login:{by}"}
        )

    tally = Tally(Clock())
    told = [tally.add(entered("eve", by)) for by in range(10 * SORTS)]
    assert sum(row is not None for row in told) == SORTS + 1
    first = tally.add(entered("ada", 0))
    assert first is not None
    assert (first.actor, first.address, first.details) == ("ada", HERE, {"credential": "login:0"})
    (others,) = tally.due(everything=True)
    assert (others.actor, others.address, others.details["count"]) == ("eve", None, 9 * SORTS - 1)


def test_log_ins_of_one_address_are_told_with_the_first_and_the_last() -> None:
    tally = Tally(Clock())
    told = [tally.add(failed("a")) for _ in range(4)]
    (summed,) = tally.due(everything=True)
    assert [row is not None for row in told] == [True, False, False, False]
    assert (summed.address, summed.details["count"]) == ("a", 3)
    assert summed.details["first"] <= summed.details["last"]


async def test_while_the_store_is_full_a_bounded_number_waits_and_the_rest_is_counted(
    tmp_path: Path, store: Store
) -> None:
    class Full:
        refuses = True

        def __init__(self, journal: Journal) -> None:
            self._journal = journal

        async def record(self, *changes: Change) -> tuple[int, ...]:
            if self.refuses:
                raise StorageFull("full")
            return await self._journal.record(*changes)

    audit = AuditLog.of_folder(tmp_path)
    await audit.look(store)
    async with Journal(store, MemoryBus(), audit=audit) as journal:
        full = Full(journal)
        async with audit.standing(full, store):
            for n in range(WAITING + 50):
                audit.count(replace(failed("a"), action=f"test.{n}"))
            full.refuses = False
    rows = await rows_of(store)
    assert [row.action for row in rows[:1]] == [BEGAN]
    (lost,) = (row for row in rows if row.action == "audit.lost")
    assert lost.details["rows"] >= 50
    assert len(rows) <= WAITING + 4
    assert await holds(tmp_path, store)


async def test_what_comes_while_rows_are_written_is_written_too_or_counted(tmp_path: Path, store: Store) -> None:
    """A store that is slow, and more rows meanwhile than may wait."""

    class Slow:
        def __init__(self, journal: Journal) -> None:
            self._journal = journal
            self.asked = anyio.Event()
            self.go_on = anyio.Event()

        async def record(self, *changes: Change) -> tuple[int, ...]:
            self.asked.set()
            await self.go_on.wait()
            return await self._journal.record(*changes)

    audit = AuditLog.of_folder(tmp_path)
    await audit.look(store)
    async with Journal(store, MemoryBus(), audit=audit) as journal:
        slow = Slow(journal)
        slow.go_on.set()
        async with audit.standing(slow, store):
            slow.asked, slow.go_on = anyio.Event(), anyio.Event()
            audit.count(replace(failed("a"), action="test.first"))
            with anyio.fail_after(10):
                await slow.asked.wait()
            for n in range(WAITING + 50):
                audit.count(replace(failed("a"), action=f"test.{n}"))
            slow.go_on.set()
    rows = await rows_of(store)
    actions = [row.action for row in rows]
    assert "test.first" in actions
    assert [f"test.{n}" for n in range(50, WAITING + 50)] == [each for each in actions if each[5:].isdigit()]
    assert [row.details for row in rows if row.action == "audit.lost"] == [{"rows": 50}]
    assert await holds(tmp_path, store)


# --- where the chain stands -------------------------------------------------------------------------------------------


async def test_a_host_goes_on_with_the_chain_of_the_one_before(tmp_path: Path, store: Store) -> None:
    for _ in range(2):
        await lived(tmp_path, store, failed("a"))
    actions = [row.action for row in await rows_of(store)]
    assert actions == [BEGAN, *["host.started", "auth.login", "host.stopped"] * 2]
    assert await holds(tmp_path, store)


@pytest.mark.parametrize("lost", ["key", "machine", "head", "rows", "row", "history"])
async def test_what_became_of_the_chain_is_said_in_its_next_row(tmp_path: Path, lost: str) -> None:
    environment = Environment(str(tmp_path), "0")
    async with open_store(SqliteSettings(), environment) as store:
        await lived(tmp_path, store, failed("a"))
    head, key = read_head(tmp_path), load_key(tmp_path)
    assert head is not None
    match lost:
        case "key":
            (tmp_path / KEY_FILE).unlink()
        case "machine":  # a restore elsewhere, without the secrets
            (tmp_path / KEY_FILE).unlink()
            (tmp_path / HEAD_FILE).unlink()
        case "head":
            (tmp_path / HEAD_FILE).unlink()
        case "rows":
            write_head(tmp_path, replace(head, seq=head.seq + 2), key)
        case "row":
            write_head(tmp_path, replace(head, mac="0" * 64), key)
        case "history":
            write_head(tmp_path, replace(head, journal_id="another"), key)
    async with open_store(SqliteSettings(), environment) as store:
        await lived(tmp_path, store)
        rows = await rows_of(store)
        assert await holds(tmp_path, store)
    why = {
        "key": "another key", "machine": "another key", "head": "no head", "rows": "rows are missing",
        "row": "rows were replaced", "history": "another history",
    }  # fmt: skip
    (mark,) = (row for row in rows[1:] if row.action == BEGAN)
    assert (mark.seq, mark.outcome, mark.details["why"]) == (head.seq + 1, "doubtful", why[lost])
    assert mark.details["after_mac"] == head.mac


async def test_a_chain_that_was_taken_away_whole_is_no_first_start(tmp_path: Path) -> None:
    environment = Environment(str(tmp_path), "0")
    async with open_store(SqliteSettings(), environment) as store:
        await lived(tmp_path, store, failed("a"))
        async with Journal(store, MemoryBus()) as journal:
            await journal.record(event("task.created", {}))
    (tmp_path / HEAD_FILE).unlink()
    with sqlite3.connect(tmp_path / "kandev.db") as database:
        for statement in ("DROP TRIGGER audit_delete", "DELETE FROM audit"):
            database.execute(statement)
    database.close()
    async with open_store(SqliteSettings(), environment) as store:
        audit = AuditLog.of_folder(tmp_path)
        await audit.look(store)
    (mark,) = audit.sealed(())
    assert (mark.row.outcome, mark.row.details["why"]) == ("doubtful", MISSING)  # type: ignore[attr-defined]


async def test_another_token_and_other_settings_are_noted_without_their_values(tmp_path: Path, store: Store) -> None:
    token = tmp_path / "token"
    for secret in ("first-secret-token", "second-secret-token"):
        token.write_text(secret)
        audit = AuditLog.of_folder(tmp_path)
        await audit.look(store)
        async with Journal(store, MemoryBus(), audit=audit) as journal, audit.standing(journal, store):
            audit.settings_are({"password": secret})
    rows = await rows_of(store)
    assert {row.action for row in rows} >= {"token.rotated", "settings.changed"}
    assert [row.action for row in rows].count("settings.changed") == 1
    assert not any("secret" in str(row.details) for row in rows)


async def test_a_token_that_is_rotated_under_a_running_host_is_noted(tmp_path: Path, store: Store) -> None:
    (tmp_path / "token").write_text("one")
    audit = AuditLog.of_folder(tmp_path)
    await audit.look(store)
    async with Journal(store, MemoryBus(), audit=audit) as journal, audit.standing(journal, store):
        (tmp_path / "token").write_text("two")
        with anyio.fail_after(60):
            while "token.rotated" not in [row.action for row in await rows_of(store)]:
                await anyio.sleep(0.05)


async def test_no_secret_that_is_known_comes_into_a_row(tmp_path: Path, store: Store) -> None:
    secret = "c4n4ry-0123456789"
    with known.in_use():
        register(secret, "a canary")
        await lived(tmp_path, store, replace(failed("a"), details={"name": f"x {secret}", "words": [secret]}))
    assert await holds(tmp_path, store)
    assert not any(secret in str(row) for row in await rows_of(store))


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    key = load_key(tmp_path)
    assert (len(key), load_key(tmp_path)) == (32, key)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("wrong", ["mode", "link", "words"])
def test_a_key_that_others_could_have_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / KEY_FILE
    load_key(tmp_path)
    if wrong == "mode":
        path.chmod(0o640)
    elif wrong == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("no key")
    with pytest.raises(StartupError, match=str(path)):
        read_key(path)


def test_a_head_that_is_damaged_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / HEAD_FILE).write_bytes(b'{"seq": 1')
    assert read_head(tmp_path) is None
    everything: Any = load_key(tmp_path)
    assert everything
