"""Who is next, and who may start at all: rank, ageing, capacity, dependencies."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kandev_agents.presets import DEMO
from kandev_host.interfaces import Put
from kandev_host.models import Task
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.tasks import TaskDelete, TaskUpdate
from kandev_host.services.orchestration.entries import rank

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
times = st.integers(0, 10**7).map(lambda seconds: BEGIN + timedelta(seconds=seconds))
priorities = st.integers(0, 10)
ageings = st.floats(1.0, 10**6)


@given(times, times, priorities, ageings)
def test_of_one_priority_the_older_is_next(one: datetime, other: datetime, priority: int, ageing_s: float) -> None:
    assert (rank(one, priority, ageing_s) < rank(other, priority, ageing_s)) == (one < other)


@given(times, priorities, priorities, ageings)
def test_of_one_age_the_higher_priority_is_next(at: datetime, one: int, other: int, ageing_s: float) -> None:
    assert (rank(at, one, ageing_s) < rank(at, other, ageing_s)) == (one > other)


@given(times, priorities, priorities, ageings)
def test_nothing_starves(at: datetime, low: int, high: int, ageing_s: float) -> None:
    """Whatever comes in more than ten steps of ageing later stands behind, however urgent."""
    later = at + timedelta(seconds=10 * ageing_s + 1)
    assert rank(at, low, ageing_s) < rank(later, high, ageing_s)


@given(times, priorities, st.floats(0, exclude_min=True, allow_infinity=False))
def test_no_setting_of_ageing_breaks_the_order(at: datetime, priority: int, ageing_s: float) -> None:
    assert rank(at, priority, ageing_s) <= at


@pytest.mark.anyio
async def test_entries_are_shown_in_their_order_with_positions(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, None)
    async with floor.dispatching():
        tasks = {name: await floor.task(name, priority=priority) for name, priority in NAMES.items()}
        await floor.looked()
        queue = await floor.queue()
    assert [(item.title, item.position) for item in queue] == [("urgent", 0), ("first", 1), ("second", 2)]
    assert {item.task_id for item in queue} == {task.id for task in tasks.values()}
    assert {item.waiting_for.kind for item in queue} == {"paused"}


NAMES = {"first": 1, "second": 1, "urgent": 9}


@pytest.mark.anyio
async def test_a_new_priority_is_a_new_place(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, None)
    async with floor.dispatching():
        await floor.task("first")
        late = await floor.task("late")
        await floor.house.tasks.update(floor.house.me, TaskUpdate(task_id=late.id, priority=5))
        await floor.looked()
        assert [item.title for item in await floor.queue()] == ["late", "first"]


@pytest.mark.anyio
async def test_no_more_agents_are_started_than_the_capacity_of_the_host(open_floor: Any) -> None:
    async with open_floor(max_agents=1) as floor, floor.dispatching():
        first, second = await floor.task(), await floor.task()
        await floor.run_became(first, activity="prompting")
        await floor.looked()
        waits = await floor.waiting_for(second)
        assert (waits.kind, waits.scope, waits.used, waits.limit) == ("capacity", "host", 1, 1)
        assert await floor.runs(second) == []
        await floor.set_state(first, "COMPLETED")
        await floor.house.agents.end((await floor.runs(first))[0].id, "enough", force=True)
        await floor.run_became(second, activity="prompting")


@pytest.mark.anyio
async def test_a_type_and_a_board_have_bounds_of_their_own_and_hold_nobody_else_back(open_floor: Any) -> None:
    types = [replace(DEMO, max_agents=1), replace(DEMO, name="other", command=DEMO.command)]
    async with open_floor(types=types, max_agents_per_board=2) as floor:
        floor.house.workspaces.on_new = anyio.sleep_forever  # what is started stays on its way up, and cannot end
        elsewhere = (await floor.house.boards.create(floor.house.me, BoardCreate(name="Elsewhere"))).board.id
        async with floor.dispatching():
            await floor.run_became(await floor.task(), status="PENDING")
            same_type = await floor.task()
            await floor.run_became(await floor.task(agent_type="other"), status="PENDING")
            same_board = await floor.task(agent_type="other")
            await floor.run_became(await floor.task(board_id=elsewhere, agent_type="other"), status="PENDING")
            await floor.looked()
            assert (await floor.waiting_for(same_type)).scope == "agent_type"
            assert (await floor.waiting_for(same_board)).scope == "board"


@pytest.mark.anyio
async def test_what_people_start_is_started_at_once_and_takes_a_place(open_floor: Any) -> None:
    async with open_floor(max_agents=1) as floor:
        first, second, third = [await floor.task(agent_type=None) for _ in range(3)]
        await floor.launch(first, agent_type="demo")
        await floor.start(second, agent_type="demo")
        async with floor.dispatching():
            await floor.house.tasks.update(floor.house.me, TaskUpdate(task_id=third.id, agent_type="demo"))
            await floor.looked()
            waits = await floor.waiting_for(third)
            assert (waits.kind, waits.used) == ("capacity", 2)


@pytest.mark.anyio
async def test_the_queue_counts_again_when_a_person_was_faster_with_the_last_place(
    open_floor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue has looked, and found a place; before it takes that, a person starts an agent."""
    async with open_floor(max_agents=1) as floor:
        floor.house.workspaces.on_new = anyio.sleep_forever
        by_hand, queued = await floor.task(agent_type=None), await floor.task()
        begin, faster = floor.house.agents.begin, anyio.Event()

        async def begun(*asked: Any, **how: Any) -> Any:
            if how.get("seen") is not None and not faster.is_set():
                faster.set()
                await floor.launch(by_hand, agent_type="demo")
            return await begin(*asked, **how)

        monkeypatch.setattr(floor.house.agents, "begin", begun)
        async with floor.dispatching():
            await floor.looked()
            assert faster.is_set()
            waits = await floor.waiting_for(queued)
            assert (waits.kind, waits.used, waits.limit) == ("capacity", 1, 1)
            assert await floor.runs(queued) == []


@pytest.mark.anyio
async def test_an_agent_that_idles_for_a_blocked_task_takes_nobodys_place(open_floor: Any) -> None:
    async with open_floor(max_agents=1) as floor, floor.dispatching():
        blocked = await floor.task("refuse")
        await floor.became(blocked, "BLOCKED")
        await floor.run_became(await floor.task(), activity="prompting")
        assert floor.house.agents.alive((await floor.runs(blocked))[0].id)


@pytest.mark.anyio
async def test_a_task_waits_for_those_that_block_it_and_then_starts_by_itself(floor: Any) -> None:
    first = await floor.task("x", agent_type=None)
    second = await floor.task("say: done", blocked_by=[first.id])
    async with floor.dispatching():
        waits = await floor.waiting_for(second)
        assert (waits.kind, [(item.task_id, item.state) for item in waits.tasks]) == ("task", [(first.id, "TODO")])
        await floor.set_state(first, "COMPLETED")
        await floor.became(second, "COMPLETED")


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
async def test_a_blocker_that_ended_otherwise_blocks_on_and_is_named(floor: Any, state: str) -> None:
    first = await floor.task("x", agent_type=None)
    second = await floor.task("say: done", blocked_by=[first.id])
    async with floor.dispatching():
        await floor.set_state(first, state)
        await floor.looked()
        waits = await floor.waiting_for(second)
        assert [(item.task_id, item.state) for item in waits.tasks] == [(first.id, state)]
        assert "1 of them has ended without that" in waits.reason
        assert (await floor.row(second)).state == "TODO"


@pytest.mark.anyio
async def test_a_deleted_blocker_blocks_nobody(floor: Any) -> None:
    first = await floor.task("x", agent_type=None)
    second = await floor.task("say: done", blocked_by=[first.id])
    async with floor.dispatching():
        await floor.house.tasks.delete(floor.house.me, TaskDelete(task_id=first.id))
        await floor.became(second, "COMPLETED")


@pytest.mark.anyio
async def test_an_agent_that_cannot_be_started_keeps_its_task_waiting_with_the_fix_and_nobody_else(floor: Any) -> None:
    unknown = await floor.task(agent_type=None, priority=10)
    await floor.house.journal.record(Put(replace(unknown, agent_type="nobody")))  # its plugin has gone since
    async with floor.dispatching():
        stuck = await floor.task(agent_type="missing", priority=10)
        await floor.became(await floor.task("say: done"), "COMPLETED")
        found = {item.task_id: item.waiting_for for item in await floor.queue()}
    assert (found[stuck.id].kind, found[stuck.id].fix) == ("agent_unavailable", "npm i no-such-agent")
    assert found[unknown.id].kind == "agent_unavailable"


@pytest.mark.anyio
async def test_a_task_that_can_never_be_started_fails_with_the_reason(floor: Any, tmp_path: Any) -> None:
    folder = tmp_path / "gone"
    for inner in ("objects", "refs"):
        (folder / inner).mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    task: Task = await floor.task(repository_url=str(folder))
    shutil.rmtree(folder)
    async with floor.dispatching():
        failed = await floor.became(task, "FAILED")
    assert str(folder) in failed.state_reason
    assert await floor.entry(task) is None
    assert await floor.runs(task) == []
