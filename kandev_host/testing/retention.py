"""What every Store must do about events that are not kept for ever; part of `StoreContract`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kandev_host.events import event
from kandev_host.interfaces import Commit, JournalState, Put, Store, Trimmed
from kandev_host.models import Receipt, now
from kandev_host.testing.world import a_task, write


@pytest.mark.anyio
class RetentionContract:
    """The tests. They use only what `Store` promises."""

    async def test_what_is_older_need_not_be_kept(self, store: Store) -> None:
        at = [event("test", {}, created_at=now() - timedelta(days=days), task_id="t") for days in (9, 8, 1, 7, 0)]
        numbers = await write(store, *at)
        week = now() - timedelta(days=6)
        assert await store.expired() == 0
        assert await store.expired(before=week) == numbers[1], "the oldest without a gap"
        assert await store.expired(before=week, limit=1) == numbers[0]
        assert await store.expired(before=now() + timedelta(days=1)) == numbers[-1]

    async def test_what_is_beyond_the_limit_need_not_be_kept(self, store: Store) -> None:
        numbers = await write(store, *(event("test", {"pad": "ä" * 5000}) for _ in range(10)))
        assert await store.expired(limit_bytes=1 << 20) == 0
        through = await store.expired(limit_bytes=60_000)
        assert through in numbers[3:7], "of 10,000 bytes each, about six are kept"
        assert await store.expired(limit_bytes=1) == numbers[-1]
        await store.trim(through)
        assert await store.expired(limit_bytes=60_000) == 0

    async def test_a_failed_commit_takes_no_room(self, store: Store) -> None:
        lost = Commit([event("test", {"pad": "x" * 90_000}), Put(a_task())])
        await store.commit([Commit([event("test", {})]), lost, Commit([event("test", {})])])
        assert await store.expired(limit_bytes=10_000) == 0

    async def test_trimmed_events_are_gone_and_the_state_says_so(self, store: Store) -> None:
        numbers = await write(store, *(event("test", {}, task_id=f"t{n % 2}") for n in range(6)))
        before = await store.journal_state()
        removed = await store.trim(numbers[3])
        assert (removed.events, removed.receipts, removed.more) == (4, 0, False)
        assert [kept.seq for kept in await store.events(0)] == numbers[4:]
        assert [kept.seq for kept in await store.events(0, topics=["task:t0"])] == [numbers[4]]
        assert await store.journal_state() == JournalState(before.journal_id, numbers[-1], numbers[4])

    async def test_one_trim_takes_its_limit_and_says_that_there_is_more(self, store: Store) -> None:
        numbers = await write(store, *(event("test", {}) for _ in range(5)))
        removed = await store.trim(numbers[-1], limit=2)
        assert (removed.events, removed.more) == (2, True)
        assert [kept.seq for kept in await store.events(0)] == numbers[2:]
        assert await store.trim(0) == Trimmed(0, 0, more=False)

    async def test_seq_goes_on_when_every_event_is_gone(self, store: Store) -> None:
        numbers = await write(store, event("test", {}, task_id="t"), event("test", {}, task_id="t"))
        await store.trim(numbers[-1])
        state = await store.journal_state()
        assert (state.head, state.oldest) == (numbers[-1], numbers[-1] + 1)
        (later,) = await write(store, event("test", {}, task_id="t"))
        assert later > numbers[-1]
        assert [kept.seq for kept in await store.events(0, topics=["task:t"])] == [later]

    async def test_trim_takes_old_receipts(self, store: Store) -> None:
        day = now() - timedelta(days=1)
        old, new = (Receipt(id=id, created_at=at, action="a", digest="d") for id, at in (("old", day), ("new", now())))
        await write(store, Put(old), Put(new))
        assert (await store.trim(0, receipts_before=now() - timedelta(hours=1))).receipts == 1
        assert await store.get(Receipt, "old") is None
        assert await store.get(Receipt, "new") == new
