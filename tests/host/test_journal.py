from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from kandev_host import Commit, Environment, Expect, JournalState, Put, Store
from kandev_host.bus import MemoryBus
from kandev_host.errors import Busy, Conflict, KandevError, NotFound, StorageFull, Unavailable
from kandev_host.events import Event, event
from kandev_host.journal import GROUP_COMMITS, Journal
from kandev_host.models import Task
from kandev_host.testing.world import BOARD, TASK, USER, a_task, a_world
from kandev_sqlite import SqliteSettings, open_store

DEADLINE_S = 60.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(SqliteSettings(), Environment(str(tmp_path), "test")) as store:
        await a_world(store)
        yield store


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
async def journal(store: Store, bus: MemoryBus) -> AsyncIterator[Journal]:
    async with Journal(store, bus) as journal:
        yield journal


class HeldStore:
    """Counts on in memory. `gate` holds the commits; `failure` is what they raise."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.begun = anyio.Event()
        self.failure: Exception | None = None
        self.groups: list[list[Commit]] = []
        self.head = 0

    def open(self) -> HeldStore:
        self.gate.set()
        return self

    async def journal_state(self) -> JournalState:
        return JournalState("id", self.head, 1)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Sequence[int] | KandevError]:
        self.begun.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.groups.append(list(commits))
        outcomes = []
        for commit in commits:
            events = sum(isinstance(change, Event) for change in commit.changes)
            outcomes.append(range(self.head + 1, self.head + 1 + events))
            self.head += events
        return outcomes


def opened(store: HeldStore, bus: MemoryBus | None = None, **limits: float) -> Journal:
    return Journal(store, bus or MemoryBus(), **limits)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_record_answers_after_commit_and_publication(store: Store, bus: MemoryBus, journal: Journal) -> None:
    heard: list[Event] = []
    bus.subscribe(["*"], heard.append)
    task = a_task()
    told = event("task.created", {"task": task}, task_id=task.id)
    (seq,) = await journal.record(Put(task), told)
    assert heard == [told]
    assert told.seq == seq == journal.published_seq
    assert await store.get(Task, task.id) == task
    assert journal.state == await store.journal_state()


@pytest.mark.anyio
async def test_events_are_durable_when_the_bus_has_them(store: Store, bus: MemoryBus, journal: Journal) -> None:
    heads: list[int] = []
    heard = anyio.Event()

    def sink(item: Event) -> None:
        heads.append(item.seq or 0)
        heard.set()

    bus.subscribe(["*"], sink)
    await journal.post(event("test", {}))
    with anyio.fail_after(DEADLINE_S):
        await heard.wait()
    assert (await store.journal_state()).head == heads[0]


@pytest.mark.anyio
async def test_everybody_sees_the_order_of_the_commits(store: Store, bus: MemoryBus, journal: Journal) -> None:
    heard: list[int | None] = []
    bus.subscribe(["*"], lambda item: heard.append(item.seq))
    returned: list[tuple[int, ...]] = []

    async def write(side: int) -> None:
        for n in range(20):
            seqs = await journal.record(event("test", {"side": side, "n": n}), event("test", {"side": side, "n": n}))
            returned.append(seqs)
            await journal.post(event("test", {}))

    async with anyio.create_task_group() as group:
        for side in range(8):
            group.start_soon(write, side)
    await journal.record(event("last", {}))
    kept = [item.seq for item in await store.events(0, limit=1000)]
    assert heard == kept == list(range(1, 8 * 20 * 3 + 2))
    assert all(second == first + 1 for first, second in returned)


@pytest.mark.anyio
async def test_a_failed_precondition_is_its_own_commits_error(store: Store, journal: Journal) -> None:
    with pytest.raises(NotFound):
        await journal.record(event("test", {}), expect=[Expect(Task, "nobody", NotFound("task", "nobody"))])
    assert await journal.record(event("test", {})) == (1,)


@pytest.mark.anyio
async def test_of_two_who_change_the_same_version_one_wins(store: Store, journal: Journal) -> None:
    outcomes: list[str] = []

    async def change(title: str) -> None:
        changed = replace(TASK, title=title, version=2)
        try:
            await journal.record(Put(changed), expect=[Expect(Task, TASK.id, Conflict("old"), "version", (1,))])
            outcomes.append(title)
        except Conflict:
            outcomes.append("conflict")

    async with anyio.create_task_group() as group:
        group.start_soon(change, "mine")
        group.start_soon(change, "yours")
    kept = await store.get(Task, TASK.id)
    assert kept is not None
    assert sorted(outcomes) == sorted(["conflict", kept.title])


@pytest.mark.anyio
async def test_what_waits_is_written_as_one_group() -> None:
    store = HeldStore()
    async with opened(store) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.record, event("first", {}))
        await store.begun.wait()
        for _ in range(5):
            await journal.post(event("test", {}))
        store.gate.set()
        await journal.record(event("last", {}))
    assert [len(commits) for commits in store.groups] == [1, 6]


@pytest.mark.anyio
async def test_a_group_is_bounded_in_bytes() -> None:
    store = HeldStore()
    async with opened(store) as journal:
        for _ in range(5):
            await journal.post(event("test", {"text": "x" * (1 << 20)}))
        store.gate.set()
        await journal.record(event("last", {}))
    assert max(len(commits) for commits in store.groups) <= 2


@pytest.mark.anyio
async def test_a_cancelled_waiter_does_not_harm_its_group() -> None:
    store, bus = HeldStore(), MemoryBus()
    heard: list[str] = []
    bus.subscribe(["*"], lambda item: heard.append(item.action))
    async with opened(store, bus) as journal:
        async with anyio.create_task_group() as group:
            group.start_soon(journal.record, event("cancelled in the commit", {}))
            await store.begun.wait()
            group.start_soon(journal.record, event("cancelled in the queue", {}))
            with anyio.fail_after(DEADLINE_S):
                while journal.waiting == 0:
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        store.gate.set()
        assert await journal.record(event("last", {})) == (3,)
    assert heard == ["cancelled in the commit", "cancelled in the queue", "last"]


@pytest.mark.anyio
async def test_when_the_store_fails_everybody_of_the_group_is_told_and_the_next_goes_on() -> None:
    store = HeldStore().open()
    store.failure = StorageFull("full")
    async with opened(store) as journal:
        told: list[str] = []

        async def record() -> None:
            try:
                await journal.record(event("test", {}))
            except StorageFull as error:
                told.append(error.code)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(record)
        assert told == ["STORAGE_FULL"] * 3
        store.failure = None
        assert await journal.record(event("test", {})) == (1,)


@pytest.mark.anyio
async def test_p12_what_waited_behind_a_group_for_the_same_lock_is_busy_with_it_and_what_came_since_is_tried() -> None:
    """Else a thousand writers would wait for one lock group by group, each for as long as the first."""
    store = HeldStore()
    store.failure = Busy("locked")
    told: list[str] = []
    async with opened(store) as journal, anyio.create_task_group() as group:

        async def record(name: str) -> None:
            try:
                await journal.record(event(name, {}))
            except Busy:
                told.append("busy")
            else:
                told.append(name)

        for _ in range(3 * GROUP_COMMITS):
            group.start_soon(record, "early")
        with anyio.fail_after(DEADLINE_S):
            await store.begun.wait()
            await anyio.wait_all_tasks_blocked()
            group.start_soon(record, "late")
            await anyio.wait_all_tasks_blocked()
            assert journal.waiting > 2 * GROUP_COMMITS
            store.begun = anyio.Event()
            store.gate.set()
            await store.begun.wait()
        store.failure = None
    assert told == ["busy"] * 3 * GROUP_COMMITS + ["late"]


@pytest.mark.anyio
async def test_an_unforeseen_failure_of_the_store_does_not_end_the_journal(caplog: pytest.LogCaptureFixture) -> None:
    store = HeldStore().open()
    store.failure = RuntimeError("a bug")
    async with opened(store) as journal:
        with caplog.at_level(logging.ERROR), pytest.raises(RuntimeError, match="a bug"):
            await journal.record(event("test", {}))
        store.failure = None
        assert await journal.record(event("test", {})) == (1,)


@pytest.mark.anyio
async def test_a_failed_post_is_raised_by_the_next_post_of_the_same_task(journal: Journal) -> None:
    await journal.post(Put(replace(a_task(), board_id="nowhere")))
    await journal.record(event("test", {}))

    async def other() -> None:
        await journal.post(event("other", {}))

    async with anyio.create_task_group() as group:
        group.start_soon(other)
    with pytest.raises(NotFound):
        await journal.post(event("not taken", {}))
    await journal.post(event("test", {}))
    assert journal.failed_posts == 1


@pytest.mark.anyio
async def test_a_full_queue_makes_its_callers_wait() -> None:
    store = HeldStore()
    async with opened(store, limit_commits=2) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.record, event("in the commit", {}))
        await store.begun.wait()
        await journal.post(event("1", {}))
        await journal.post(event("2", {}))
        with anyio.move_on_after(0.05) as waited:
            await journal.post(event("not taken", {}))
        assert waited.cancelled_caught
        store.gate.set()
        await journal.post(event("3", {}))
    assert sum(len(commits) for commits in store.groups) == 4


@pytest.mark.anyio
async def test_a_queue_that_stays_full_is_busy() -> None:
    store = HeldStore()
    async with opened(store, limit_commits=1, full_timeout_s=0.05) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.record, event("in the commit", {}))
        await store.begun.wait()
        await journal.post(event("waits", {}))
        with pytest.raises(Busy):
            await journal.record(event("not taken", {}))
        store.gate.set()


@pytest.mark.anyio
async def test_many_callers_get_through_a_narrow_queue(store: Store) -> None:
    async with Journal(store, MemoryBus(), limit_commits=1) as journal:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(journal.record, event("test", {}))
        assert journal.published_seq == 50


@pytest.mark.anyio
async def test_leaving_writes_what_waits_and_refuses_what_comes(store: Store) -> None:
    async with Journal(store, MemoryBus()) as journal:
        for _ in range(100):
            await journal.post(event("test", {}))
    assert (await store.journal_state()).head == 100
    with pytest.raises(Unavailable):
        await journal.record(event("test", {}))
    with pytest.raises(Unavailable):
        await journal.post(event("test", {}))


@pytest.mark.anyio
async def test_leaving_by_cancellation_writes_what_waits(store: Store) -> None:
    with anyio.CancelScope() as scope:
        async with Journal(store, MemoryBus()) as journal:
            for _ in range(100):
                await journal.post(event("test", {}))
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert (await store.journal_state()).head == 100


@pytest.mark.anyio
async def test_an_error_of_the_body_comes_out_as_it_is(store: Store) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with Journal(store, MemoryBus()):
            raise LookupError("mine")


@pytest.mark.anyio
async def test_a_store_that_hangs_does_not_hang_the_shutdown() -> None:
    store = HeldStore()
    told: list[str] = []

    async def record(journal: Journal) -> None:
        try:
            await journal.record(event("test", {}))
        except Unavailable as error:
            told.append(error.code)

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as group, opened(store, drain_timeout_s=0.05) as journal:
            group.start_soon(record, journal)
            await store.begun.wait()
            group.start_soon(record, journal)
            while journal.waiting == 0:
                await anyio.lowlevel.checkpoint()
    assert told == ["UNAVAILABLE"] * 2


@pytest.mark.anyio
async def test_a_transient_event_is_published_and_not_kept(store: Store, bus: MemoryBus, journal: Journal) -> None:
    heard: list[Event] = []
    bus.subscribe(["*"], heard.append)
    journal.publish_transient(event("acp.heartbeat", {}))
    assert [item.seq for item in heard] == [None]
    assert await store.events(0) == []


@pytest.mark.anyio
async def test_an_event_can_be_recorded_once_only(journal: Journal) -> None:
    told = event("test", {})
    await journal.record(told)
    with pytest.raises(ValueError, match="before"):
        await journal.record(told)


@pytest.mark.anyio
async def test_a_bus_that_fails_does_not_undo_what_is_written(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    class BrokenBus(MemoryBus):
        def publish(self, events: Sequence[Event]) -> None:
            raise RuntimeError("no relay")

    async with Journal(store, BrokenBus()) as journal:
        with caplog.at_level(logging.ERROR):
            assert await journal.record(event("test", {})) == (1,)
    assert "no relay" in caplog.text


@pytest.mark.anyio
async def test_the_journal_goes_on_where_it_stood(store: Store) -> None:
    async with Journal(store, MemoryBus()) as first:
        await first.record(event("test", {}), event("test", {}))
    async with Journal(store, MemoryBus()) as second:
        assert second.published_seq == 2
        assert second.state == first.state
        assert await second.record(event("test", {})) == (3,)


@pytest.mark.anyio
async def test_nothing_to_record_is_no_error(journal: Journal) -> None:
    assert await journal.record() == ()
    assert await journal.record(Put(USER), Put(BOARD)) == ()


def attached_to(store: HeldStore) -> list[list[str]]:
    """Of each commit, its events and attached rows."""
    return [
        [change.action if isinstance(change, Event) else "row" for change in commit.changes]
        for group in store.groups
        for commit in group
    ]


@pytest.mark.anyio
async def test_an_attached_row_goes_with_the_first_commit_only() -> None:
    store = HeldStore().open()
    async with opened(store) as journal:
        with journal.attaching(TASK) as attached:
            assert not attached.taken
            await journal.record(event("1", {}))
            assert attached.taken
            await journal.record(event("2", {}))
        await journal.record(event("3", {}))
    assert attached_to(store) == [["1", "row"], ["2"], ["3"]]


@pytest.mark.anyio
async def test_an_attached_row_goes_with_a_post_too() -> None:
    store = HeldStore().open()
    async with opened(store) as journal:
        with journal.attaching(TASK):
            await journal.post(event("1", {}))
            await journal.record(event("2", {}))
    assert attached_to(store) == [["1", "row"], ["2"]]


@pytest.mark.anyio
async def test_an_attached_row_is_made_of_the_reply_that_its_commit_names(store: Store, journal: Journal) -> None:
    row = a_task()
    with journal.attaching(row, lambda reply: replace(row, title=reply)) as attached:
        gone = Expect(Task, "nobody", NotFound("task", "nobody"))
        with pytest.raises(NotFound):
            await journal.record(event("1", {}), expect=[gone], reply="first")
        await journal.record(event("2", {}), reply="second")
        await journal.record(event("3", {}), reply="third")
    assert attached.row == await store.get(Task, row.id) == replace(row, title="second")


@pytest.mark.anyio
async def test_changes_of_a_board_are_counted_when_they_are_taken_and_when_they_are_written() -> None:
    store = HeldStore()
    async with opened(store) as journal, anyio.create_task_group() as tasks:
        before = journal.changes_of("b")
        tasks.start_soon(journal.record, event("task.created", {}, board_id="b"))
        await store.begun.wait()
        assert journal.changes_of("b") == before + 1
        store.open()
        await journal.record()
        assert journal.changes_of("b") == before + 2


@pytest.mark.anyio
async def test_a_board_that_was_quiet_for_long_never_comes_back_to_an_old_count(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kandev_host.journal.BOARDS_COUNTED", 2)
    seen: list[int] = []
    for board in "abcabc":
        await journal.record(event("task.created", {}, board_id=board))
        seen.append(journal.changes_of("a"))
    assert seen == sorted(seen)
    assert seen[3] > seen[0]


@pytest.mark.anyio
async def test_events_of_agents_change_no_board(journal: Journal) -> None:
    before = journal.changes_of("b")
    await journal.record(event("acp.log", {}, board_id="b", agent_id="a"))
    assert journal.changes_of("b") == before


@pytest.mark.anyio
async def test_an_attached_row_waits_for_a_commit_that_does_not_fail(store: Store, journal: Journal) -> None:
    row = a_task()
    with journal.attaching(row) as attached:
        with pytest.raises(NotFound):
            await journal.record(event("1", {}), expect=[Expect(Task, "nobody", NotFound("task", "nobody"))])
        assert not attached.taken
        assert await store.get(Task, row.id) is None
        await journal.record(event("2", {}))
    assert await store.get(Task, row.id) == row


@pytest.mark.anyio
async def test_a_row_is_attached_to_its_task_and_not_to_those_it_starts() -> None:
    store = HeldStore().open()
    async with opened(store) as journal:
        with journal.attaching(TASK):
            async with anyio.create_task_group() as group:
                group.start_soon(journal.record, event("background", {}))
            await journal.record(event("mine", {}))
    assert attached_to(store) == [["background"], ["mine", "row"]]


@pytest.mark.anyio
async def test_without_a_row_an_attachment_tells_whether_anything_was_committed() -> None:
    store = HeldStore().open()
    async with opened(store) as journal:
        with journal.attaching(None) as attached:
            await journal.record(event("1", {}))
        assert attached.taken
    assert attached_to(store) == [["1"]]
