"""What every Store must do. Subclass `StoreContract` and give it an (async) fixture `store`: an empty, open one."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_host.errors import Conflict, KandevError, NotFound, ValidationFailed
from kandev_host.events import Event, event
from kandev_host.interfaces import Commit, Expect, Put, Remove, Shift, Store
from kandev_host.models import (
    AgentInstance,
    AgentLog,
    Board,
    Command,
    Row,
    Task,
    Usage,
    User,
    Workspace,
    now,
)
from kandev_host.testing.audit import AuditContract
from kandev_host.testing.retention import RetentionContract
from kandev_host.testing.usage import UsageContract
from kandev_host.testing.world import AGENT, BOARD, ONE_OF_EACH, TASK, USER, a_task, a_world, seqs, write


@pytest.mark.anyio
class StoreContract(AuditContract, RetentionContract, UsageContract):
    """The tests. They use only what `Store` promises."""

    @pytest.mark.parametrize("row", ONE_OF_EACH, ids=lambda row: type(row).__name__)
    async def test_a_row_is_read_back_as_it_was_written(self, store: Store, row: Row) -> None:
        await a_world(store)
        assert await store.get(type(row), row.id) == row

    async def test_an_unknown_id_is_none(self, store: Store) -> None:
        assert await store.get(Task, "nobody") is None

    async def test_put_replaces_the_row_and_keeps_its_children(self, store: Store) -> None:
        await a_world(store)
        renamed = replace(BOARD, name="Outbox")
        await write(store, Put(renamed))
        assert await store.get(Board, BOARD.id) == renamed
        assert await store.get(Task, TASK.id) == TASK

    async def test_remove_takes_what_belongs_to_the_row(self, store: Store) -> None:
        await a_world(store)
        await write(store, Remove(Board, BOARD.id))
        assert await store.get(Task, TASK.id) is None
        assert await store.get(AgentInstance, AGENT.id) is None

    async def test_usage_and_workspace_outlive_their_task(self, store: Store) -> None:
        await a_world(store)
        await write(store, Remove(Task, TASK.id))
        assert await store.count(Usage) == 1
        assert await store.count(Workspace) == 1

    async def test_commits_of_one_group_see_what_the_ones_before_them_put(self, store: Store) -> None:
        """Also when the rows are of kinds that refer to each other, in any order."""
        await write(store, Put(USER))
        boards = [replace(BOARD, id=f"b{n}") for n in range(3)]
        tasks = [replace(a_task(str(n)), board_id=boards[n].id) for n in range(3)]
        gone = Conflict("gone")
        outcomes = await store.commit(
            [
                Commit([Put(boards[0]), Put(tasks[0])]),
                Commit([Put(boards[1])], [Expect(Task, tasks[0].id, gone)]),
                Commit([Put(tasks[1]), Remove(Task, tasks[0].id)]),
                Commit([Put(boards[2])], [Expect(Task, tasks[0].id, gone)]),
                Commit([Put(replace(tasks[1], title="new")), Put(boards[2]), Put(tasks[2])]),
            ]
        )
        assert [outcome is gone for outcome in outcomes] == [False, False, False, True, False]
        found = (await store.find(Task)).rows
        assert {(task.title, task.board_id) for task in found} == {("new", "b1"), ("2", "b2")}

    async def test_many_commits_of_one_group_answer_each_for_itself(self, store: Store) -> None:
        await write(store, Put(USER), Put(BOARD))
        tasks = [a_task(str(n)) for n in range(77)]
        refused = {7, 40}
        outcomes = await store.commit(
            [
                Commit(
                    [
                        Put(replace(task, board_id="nowhere") if number in refused else task),
                        event("task.created", {"n": number}, task_id=task.id),
                    ]
                )
                for number, task in enumerate(tasks)
            ]
        )
        assert {number for number, outcome in enumerate(outcomes) if isinstance(outcome, NotFound)} == refused
        seqs = [outcome[0] for outcome in outcomes if not isinstance(outcome, KandevError)]
        assert seqs == list(range(1, len(tasks) - len(refused) + 1))
        for number, task in enumerate(tasks):
            told = await store.events(0, topics=[f"task:{task.id}"])
            assert [bytes(one.payload) for one in told] == ([] if number in refused else [b'{"n":%d}' % number])

    async def test_a_shift_changes_one_number_of_the_rows_it_names(self, store: Store) -> None:
        tasks = [replace(a_task(str(n)), position=n) for n in range(4)]
        moved = replace(tasks[3], position=1)
        await write(store, Put(USER), Put(BOARD), *map(Put, tasks))
        await write(store, Shift(Task, "position", 1, [("position", ">=", 1), ("position", "<", 3)]), Put(moved))
        found = (await store.find(Task, order=("position", "id"))).rows
        assert [(task.title, task.position) for task in found] == [("0", 0), ("3", 1), ("1", 2), ("2", 3)]
        assert found[2] == replace(tasks[1], position=2)

    async def test_a_shift_that_breaks_a_rule_undoes_its_commit(self, store: Store) -> None:
        await a_world(store)
        outcomes = await store.commit([Commit([Put(a_task("gone")), Shift(Task, "position", -9, [])])])
        assert isinstance(outcomes[0], ValidationFailed)
        assert await store.count(Task) == 1

    async def test_removing_nothing_is_no_error(self, store: Store) -> None:
        assert await write(store, Remove(Task, "nobody")) == []

    async def test_seq_grows_in_the_order_of_commits_and_events(self, store: Store) -> None:
        told = [event("test", {"n": n}) for n in range(6)]
        outcomes = await store.commit([Commit(told[:2]), Commit([]), Commit(told[2:5]), Commit(told[5:])])
        numbers = [seq for outcome in outcomes for seq in seqs(outcome)]
        assert numbers == sorted(set(numbers))
        assert [len(seqs(outcome)) for outcome in outcomes] == [2, 0, 3, 1]
        assert [(kept.seq, kept.id) for kept in await store.events(0)] == [
            (seq, item.id) for seq, item in zip(numbers, told, strict=True)
        ]

    async def test_seq_grows_from_one_transaction_to_the_next(self, store: Store) -> None:
        first = await write(store, event("test", {}))
        assert await write(store, event("test", {})) > first

    async def test_an_event_is_read_back_as_it_was_written(self, store: Store) -> None:
        told = event("acp.log", {"text": "ä\u2028"}, actor="x", board_id="b", task_id="t", agent_id="a", turn_id="u")
        (told.seq,) = await write(store, told)
        (kept,) = await store.events(0)
        assert bytes(kept.payload) == bytes(told.payload)
        assert {**asdict(kept), "payload": None} == {**asdict(told), "payload": None}

    async def test_pages_of_events_tell_every_id_once(self, store: Store) -> None:
        """An import that leaves out what is there asks for them so."""
        told = [event("test", {"n": n}) for n in range(7)]
        await store.commit([Commit(told)])
        ids: list[str] = []
        after = 0
        while found := await store.events(after, limit=3):
            ids += [each.id for each in found]
            after = found[-1].seq or 0
        assert ids == [each.id for each in told]

    async def test_a_failed_precondition_undoes_only_its_own_commit(self, store: Store) -> None:
        await a_world(store)
        old = Conflict("old", state="TODO")
        outcomes = await store.commit(
            [
                Commit([Put(a_task("kept 1")), event("test", {})]),
                Commit([Put(a_task("lost")), event("test", {})], [Expect(Task, TASK.id, old, "version", (7, 8))]),
                Commit([Put(a_task("kept 2")), event("test", {})], [Expect(Task, TASK.id, old, "version", (7, 1))]),
            ]
        )
        assert outcomes[1] is old
        assert {task.title for task in (await store.find(Task)).rows} == {TASK.title, "kept 1", "kept 2"}
        assert [kept.seq for kept in await store.events(0)] == seqs(outcomes[0]) + seqs(outcomes[2])

    async def test_a_precondition_sees_the_commits_before_it(self, store: Store) -> None:
        await a_world(store)
        gone = NotFound("task", TASK.id)
        (first, second) = await store.commit(
            [Commit([Remove(Task, TASK.id)]), Commit([event("test", {})], [Expect(Task, TASK.id, gone)])]
        )
        assert first == seqs(first) or not seqs(first)
        assert second is gone

    async def test_a_precondition_may_ask_for_an_unknown_value(self, store: Store) -> None:
        await a_world(store)
        expect = Expect(Task, TASK.id, Conflict("taken"), "assigned_agent_id", (None,))
        (outcome,) = await store.commit([Commit([event("test", {})], [expect])])
        assert len(seqs(outcome)) == 1

    async def test_a_broken_constraint_undoes_only_its_own_commit(self, store: Store) -> None:
        await a_world(store)
        twin = User(email=USER.email, username="other")
        outcomes = await store.commit(
            [
                Commit([Put(a_task("kept 1")), event("test", {})]),
                Commit([Put(a_task("lost")), event("test", {}), Put(twin)]),
                Commit([Put(a_task("kept 2")), event("test", {})]),
            ]
        )
        assert isinstance(outcomes[1], Conflict)
        assert {task.title for task in (await store.find(Task)).rows} == {TASK.title, "kept 1", "kept 2"}
        assert [kept.seq for kept in await store.events(0)] == seqs(outcomes[0]) + seqs(outcomes[2])

    async def test_a_row_of_a_missing_parent_is_not_found(self, store: Store) -> None:
        (outcome,) = await store.commit([Commit([Put(a_task())])])
        assert isinstance(outcome, NotFound)
        assert outcome.details["id"] == BOARD.id

    async def test_text_that_no_utf8_holds_is_refused_alone(self, store: Store) -> None:
        await a_world(store)
        bad, good = await store.commit([Commit([Put(a_task("\ud800"))]), Commit([Put(a_task("good"))])])
        assert isinstance(bad, ValidationFailed)
        assert seqs(good) == []

    @pytest.mark.parametrize(
        ("condition", "found"),
        [
            (("state", "=", "TODO"), {0, 1}),
            (("branch", "=", None), {0, 2}),
            (("state", "in", ("FAILED", "BLOCKED")), {2}),
            (("branch", "in", (None, "main")), {0, 1, 2}),
            (("state", "in", ()), set()),
            (("priority", "<", 5), {0}),
            (("priority", "<=", 5), {0, 1}),
            (("priority", ">", 5), {2}),
            (("priority", ">=", 5), {1, 2}),
            (("created_at", "<=", now), {0, 1, 2}),
        ],
    )
    async def test_find_chooses_by(self, store: Store, condition: tuple[Any, Any, Any], found: set[int]) -> None:
        tasks = [a_task("0"), a_task("1", priority=5, branch="main"), a_task("2", priority=9, state="FAILED")]
        await write(store, Put(USER), Put(BOARD), *map(Put, tasks))
        field, op, value = condition
        where = [(field, op, value() if callable(value) else value)]
        page = await store.find(Task, where)
        assert {int(task.title) for task in page.rows} == found
        assert page.next_cursor is None
        assert await store.count(Task, where) == len(found)

    async def test_pages_follow_each_other_without_gap_or_repeat(self, store: Store) -> None:
        tasks = [a_task(str(n), priority=n % 3, branch=None if n % 2 else "b") for n in range(10)]
        await write(store, Put(USER), Put(BOARD), *map(Put, tasks))
        order = ("-priority", "branch", "-id")
        met: list[Task] = []
        cursor = None
        for _ in range(10):
            page = await store.find(Task, order=order, limit=3, cursor=cursor)
            met += page.rows
            cursor = page.next_cursor
            if cursor is None:
                break
        whole = (await store.find(Task, order=order)).rows
        assert met == whole
        assert len(whole) == len(tasks)
        assert [task.priority for task in whole] == sorted((task.priority for task in tasks), reverse=True)

    async def test_a_cursor_stays_good_when_rows_come_and_go(self, store: Store) -> None:
        tasks = [a_task(str(n)) for n in range(4)]
        await write(store, Put(USER), Put(BOARD), *map(Put, tasks))
        page = await store.find(Task, limit=2)
        await write(store, Remove(Task, tasks[1].id), Remove(Task, tasks[2].id))
        assert (await store.find(Task, limit=2, cursor=page.next_cursor)).rows == [tasks[3]]

    @pytest.mark.parametrize("cursor", ["", "x", "AAAA", "\ud800", "W10", "ä" * 50])
    async def test_a_made_up_cursor_is_refused(self, store: Store, cursor: str) -> None:
        with pytest.raises(ValidationFailed, match="cursor"):
            await store.find(Task, cursor=cursor)

    async def test_a_cursor_of_another_order_is_refused(self, store: Store) -> None:
        await write(store, Put(USER), Put(BOARD), Put(a_task()), Put(a_task()))
        page = await store.find(Task, limit=1)
        with pytest.raises(ValidationFailed, match="cursor"):
            await store.find(Task, order=("-id",), cursor=page.next_cursor)

    async def test_an_unknown_field_is_refused_by_name(self, store: Store) -> None:
        with pytest.raises(ValidationFailed) as caught:
            await store.find(Task, [("nonsense", "=", 1)])
        assert caught.value.details["field"] == "nonsense"

    @pytest.mark.parametrize("query", ["login", "LOG*", '"the login" fails', '"login bu"*', "fails Fix"])
    async def test_full_text_finds(self, store: Store, query: str) -> None:
        await a_world(store)
        await write(store, Put(a_task("the bug")))
        assert (await store.find(Task, [("text", "match", query)])).rows == [TASK]

    @pytest.mark.parametrize("query", ["", " ", "*", '"', '""', "AND", "NOT login", "a:b", "(", "log", "login -"])
    async def test_full_text_never_fails_on_its_syntax(self, store: Store, query: str) -> None:
        await a_world(store)
        await store.find(Task, [("text", "match", query)])
        await store.search(query)

    async def test_full_text_follows_changes(self, store: Store) -> None:
        await a_world(store)
        await write(store, Put(replace(TASK, title="Paint the door")))
        assert await store.count(Task, [("text", "match", "login")]) == 0
        assert await store.count(Task, [("text", "match", "door")]) == 1

    async def test_full_text_finds_in_logs_and_commands(self, store: Store) -> None:
        await a_world(store)
        assert await store.count(AgentLog, [("text", "match", "bounds")]) == 1
        assert await store.count(Command, [("text", "match", "make test")]) == 1

    async def test_search_names_kind_task_and_marks_the_words(self, store: Store) -> None:
        await a_world(store)
        (hit,) = await store.search("login")
        assert (hit.kind, hit.id, hit.task_id) == ("task", TASK.id, TASK.id)
        assert hit.snippet == "Fix the [login] bug"

    @pytest.mark.parametrize("query", ["make", "tee out", "mak*", '"make test"', '"out t"*'])
    async def test_search_finds_commands(self, store: Store, query: str) -> None:
        await a_world(store)
        (hit,) = await store.search(query, kinds=("command",))
        assert (hit.kind, hit.task_id) == ("command", TASK.id)
        assert "[" in hit.snippet

    async def test_search_gives_the_best_hits_up_to_the_limit(self, store: Store) -> None:
        await write(store, Put(USER), Put(BOARD), *(Put(a_task(f"login {'and more ' * n}")) for n in range(5)))
        hits = await store.search("login", limit=3)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert (len(hits), hits[0].snippet) == (3, "[login] ")

    async def test_search_finds_prompts_summaries_and_logs(self, store: Store) -> None:
        await a_world(store)
        told = event("acp.result", {"summary": "All is bounds-checked"}, task_id=TASK.id, agent_id=AGENT.id)
        await write(store, told)
        assert {hit.kind for hit in await store.search("bounds")} == {"message", "log"}
        assert [hit.kind for hit in await store.search("please", kinds=("message",))] == ["message"]
        assert await store.search("bounds", kinds=("task",)) == []
        assert await store.search("bounds", task_id="other") == []

    async def test_events_of_topics_come_once_and_in_order(self, store: Store) -> None:
        told = [
            event("a.one", {}, task_id="t1", board_id="b"),
            event("a.two", {}, task_id="t2", board_id="b", agent_id="x"),
            event("b.one", {}, task_id="t1", agent_id="x", turn_id="u"),
            event("b.two", {}),
        ]
        numbers = await write(store, *told)

        async def found(*topics: str, **options: Any) -> list[int]:
            kept: list[Event] = await store.events(options.pop("after_seq", 0), topics=topics, **options)
            return [numbers.index(item.seq or 0) for item in kept]

        assert await found("*") == [0, 1, 2, 3]
        assert await found("task:t1") == [0, 2]
        assert await found("board:b") == [0, 1]
        assert await found("agent:x") == [1, 2]
        assert await found("task:t1", "agent:x", "shell:s") == [0, 1, 2]
        assert await found("task:t1", "agent:x", limit=2) == [0, 1]
        assert await found("task:t1", "agent:x", after_seq=numbers[0]) == [1, 2]
        assert await found("task:t1", action_prefix="b.") == [2]
        assert await found("*", action_prefix="b.") == [2, 3]
        assert await found("shell:s") == []

    async def test_a_page_of_events_ends_with_the_one_that_fills_it(self, store: Store) -> None:
        numbers = await write(store, *(event("test", {"text": "x" * 1000}, task_id="t") for _ in range(5)))
        for topic in ("*", "task:t"):
            page = await store.events(0, topics=[topic], limit_bytes=1500)
            assert [item.seq for item in page] == numbers[:2]
            assert len(await store.events(0, topics=[topic], limit_bytes=1)) == 1
            assert len(await store.events(0, topics=[topic], limit_bytes=1 << 20)) == 5

    async def test_the_state_of_the_journal_follows_its_events(self, store: Store) -> None:
        empty = await store.journal_state()
        assert empty.oldest == empty.head + 1
        numbers = await write(store, event("test", {}), event("test", {}))
        state = await store.journal_state()
        assert (state.journal_id, state.oldest, state.head) == (empty.journal_id, *numbers)

    async def test_a_cancelled_read_harms_nobody(self, store: Store) -> None:
        await a_world(store)
        for _ in range(8):
            with anyio.move_on_after(0):
                await store.search("login")
        assert await store.get(Task, TASK.id) == TASK


def asdict(item: Event) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__struct_fields__}
