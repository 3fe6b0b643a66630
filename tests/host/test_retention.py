"""Old events and receipts go in the background, and the journal says what is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import pytest

from kandev_host import Environment, Put, Store, Trimmed, intervals
from kandev_host.bus import MemoryBus
from kandev_host.errors import StorageFull
from kandev_host.events import event
from kandev_host.journal import Journal
from kandev_host.models import Receipt, now
from kandev_host.retention import BATCH, Retention, Trimmer
from kandev_host.testing.world import write
from kandev_sqlite import SqliteSettings, open_store

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0
DAY_S = 86_400.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(SqliteSettings(), Environment(str(tmp_path), "test")) as store:
        yield store


async def some_events(store: Store, number: int, *, days_old: float) -> list[int]:
    at = now() - timedelta(days=days_old)
    return await write(store, *(event("test", {"n": n}, created_at=at, task_id="t") for n in range(number)))


async def test_what_is_too_old_goes_and_the_rest_stays(store: Store) -> None:
    old = await some_events(store, 2 * BATCH + 3, days_old=3)
    new = await some_events(store, 5, days_old=1)
    told: list[int] = []
    await Trimmer(store, Retention(kept_s=2 * DAY_S), told.append).trim()
    assert [kept.seq for kept in await store.events(0)] == new
    assert told == [old[BATCH - 1], old[2 * BATCH - 1], old[-1]], "in batches, oldest first"


async def test_events_beyond_the_limit_go_oldest_first(store: Store) -> None:
    numbers = await some_events(store, 100, days_old=0)
    await Trimmer(store, Retention(limit_bytes=5000), lambda _: None).trim()
    kept = [kept.seq for kept in await store.events(0)]
    assert kept == numbers[-len(kept) :]
    assert 20 <= len(kept) <= 40


async def test_without_limits_everything_stays(store: Store) -> None:
    numbers = await some_events(store, 10, days_old=4000)
    await Trimmer(store, Retention(), lambda _: None).trim()
    assert [kept.seq for kept in await store.events(0)] == numbers


async def test_receipts_go_after_a_day(store: Store) -> None:
    for hours in (25, 23):
        made = now() - timedelta(hours=hours)
        await write(store, Put(Receipt(id=f"{hours}", created_at=made, action="a", digest="d")))
    await Trimmer(store, Retention(), lambda _: None).trim()
    assert [await store.get(Receipt, id) is None for id in ("25", "23")] == [True, False]


async def test_p17_a_clock_that_jumps_ahead_removes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmer = Trimmer(store, Retention(kept_s=DAY_S), lambda _: None)
    numbers = await some_events(store, 10, days_old=0)
    monkeypatch.setattr("kandev_host.retention.now", lambda: now() + timedelta(days=400))
    await trimmer.trim()
    assert [kept.seq for kept in await store.events(0)] == numbers


async def test_p17_a_clock_that_jumps_back_removes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmer = Trimmer(store, Retention(kept_s=DAY_S), lambda _: None)
    numbers = await some_events(store, 10, days_old=100)
    monkeypatch.setattr("kandev_host.retention.now", lambda: now() - timedelta(days=400))
    await trimmer.trim()
    assert [kept.seq for kept in await store.events(0)] == numbers


async def test_the_journal_trims_in_the_background_while_it_writes(store: Store) -> None:
    old = await some_events(store, 3 * BATCH, days_old=3)
    async with Journal(store, MemoryBus(), retention=Retention(kept_s=DAY_S, interval_s=0.01)) as journal:
        with anyio.fail_after(DEADLINE_S):
            while (await store.journal_state()).oldest <= old[-1]:
                await journal.record(event("live", {}))
        state = journal.state
        assert state == await store.journal_state()
        assert state.oldest == old[-1] + 1
    async with Journal(store, MemoryBus()) as later:
        assert later.state == state


async def test_a_restart_after_all_was_trimmed_goes_on_counting(store: Store, tmp_path: Path) -> None:
    old = await some_events(store, 10, days_old=3)
    await Trimmer(store, Retention(kept_s=DAY_S), lambda _: None).trim()
    async with (
        open_store(SqliteSettings(), Environment(str(tmp_path), "test")) as again,
        Journal(again, MemoryBus()) as journal,
    ):
        assert (journal.state.head, journal.state.oldest) == (old[-1], old[-1] + 1)
        assert await journal.record(event("test", {})) == (old[-1] + 1,)
        assert journal.state.oldest == old[-1] + 1


async def test_a_store_that_refuses_is_asked_again() -> None:
    class Full:
        asked = 0

        async def expired(self, *, before: datetime | None, **_: object) -> int:
            del before
            self.asked += 1
            if self.asked < 3:
                raise StorageFull("full")
            asked_again.set()
            return 0

        async def trim(self, _through_seq: int, **_: object) -> Trimmed:
            return Trimmed(0, 0, more=False)

    asked_again = anyio.Event()
    trimmer = Trimmer(Full(), Retention(interval_s=0.001), lambda _: None)  # type: ignore[arg-type]
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(trimmer.run)
            await asked_again.wait()
            group.cancel_scope.cancel()


async def test_a_shorter_interval_counts_although_a_longer_one_was_begun(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "LOOK_S", 0.02)
    await write(store, event("test", {}, created_at=now() - timedelta(days=2)))
    retention = Retention(kept_s=DAY_S, interval_s=DAY_S)
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(Trimmer(store, retention, lambda _: None).run)
            await anyio.wait_all_tasks_blocked()
            retention.interval_s = 0.01
            while await store.events(0):
                await anyio.sleep(0.02)
            group.cancel_scope.cancel()
