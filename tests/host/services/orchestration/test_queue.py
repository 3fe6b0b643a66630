"""How tasks come into the queue and out of it, and what its actions do."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from kandev_host.errors import Conflict, NotFound, ValidationFailed
from kandev_host.interfaces import Put
from kandev_host.models import LIVE_STATUSES, AgentInstance, QueueEntry
from kandev_host.protocol.actions.agents import AgentLaunch
from kandev_host.protocol.actions.boards import BoardDelete
from kandev_host.protocol.actions.orchestrator import (
    OrchestratorComplete,
    OrchestratorPause,
    OrchestratorPrompt,
    OrchestratorQueue,
    OrchestratorResume,
    OrchestratorStatus,
    OrchestratorStop,
    OrchestratorTrigger,
)
from kandev_host.protocol.actions.tasks import TaskDelete, TaskMove, TaskUpdate
from kandev_host.services.rows import column_for, columns_of

pytestmark = pytest.mark.anyio


async def trigger(floor: Any, task: Any, **fields: Any) -> Any:
    request = OrchestratorTrigger(task_id=task.id, **fields)
    return await floor.house.orchestrator.trigger(floor.house.me, request)


async def live(floor: Any) -> list[AgentInstance]:
    found = await floor.house.store.find(AgentInstance, [("status", "in", LIVE_STATUSES)])
    return list(found.rows)


async def status(floor: Any) -> Any:
    return await floor.house.orchestrator.status(floor.house.me, OrchestratorStatus())


# --- in and out -------------------------------------------------------------------------------------------------------


async def test_a_task_that_names_an_agent_type_runs_by_itself(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task("write hello.txt: hello")
        await floor.became(task, "COMPLETED")
    told = [item.action for item in floor.house.events]
    assert told.count("orchestrator.updated") == 3, "queued, claimed, gone"


async def test_a_task_without_an_agent_type_is_left_alone_until_it_names_one(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task("say: done", agent_type=None)
        await floor.looked()
        assert await floor.entry(task) is None
        await floor.house.tasks.update(floor.house.me, TaskUpdate(task_id=task.id, agent_type="demo"))
        await floor.became(task, "COMPLETED")


async def test_without_auto_start_nothing_starts_by_itself(open_floor: Any) -> None:
    async with open_floor(auto_start=False) as floor, floor.dispatching():
        task = await floor.task("say: done")
        await floor.looked()
        assert await floor.entry(task) is None
        reply = await trigger(floor, task)
        assert reply.agent is not None
        await floor.became(task, "COMPLETED")


async def test_a_task_made_before_auto_start_was_set_is_found(open_floor: Any) -> None:
    async with open_floor(auto_start=False) as floor:
        task = await floor.task("say: done")
    async with open_floor() as floor, floor.dispatching():
        await floor.became(task, "COMPLETED")


async def test_a_task_moved_into_the_column_for_todo_is_queued(floor: Any) -> None:
    todo = column_for(await columns_of(floor.house.store, floor.board_id), "TODO")
    assert todo is not None
    task = await floor.task("say: done")
    await floor.set_state(task, "BLOCKED")
    async with floor.dispatching():
        assert await floor.entry(task) is None
        await floor.house.tasks.move(floor.house.me, TaskMove(task_id=task.id, column_id=todo.id, position=0))
        await floor.became(task, "COMPLETED")


@pytest.mark.parametrize("state", ["IN_PROGRESS", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED"])
async def test_a_task_that_a_person_takes_out_of_todo_leaves_the_queue(floor: Any, state: str) -> None:
    await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
    task = await floor.task()
    async with floor.dispatching():
        assert await floor.entry(task) is not None
        await floor.set_state(task, state)
        await floor.looked()
        assert await floor.entry(task) is None
        assert (await floor.row(task)).state == state


async def test_a_running_task_that_a_person_puts_back_waits_for_its_agent_to_go(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task()
        agent = await floor.run_became(task, activity="prompting")
        await floor.set_state(task, "TODO")
        await floor.looked()
        waits = await floor.waiting_for(task)
        assert (waits.kind, waits.scope) == ("capacity", "task")
        await floor.house.agents.end(agent.id, "enough", force=True)
        await floor.looked()
        assert len(await floor.runs(task)) == 2


async def test_deleting_a_queued_task_takes_its_entry_with_it(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
    task, other = await floor.task(), await floor.task()
    async with floor.dispatching():
        await floor.house.tasks.delete(floor.house.me, TaskDelete(task_id=task.id))
        await floor.looked()
        assert [item.task_id for item in await floor.queue()] == [other.id]
        await floor.house.boards.delete(floor.house.me, BoardDelete(board_id=floor.board_id))
        await floor.looked()
        assert await floor.house.store.count(QueueEntry) == 0


async def test_that_a_deleted_task_left_the_queue_is_told_of_each_that_was_in_it(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
    task, other = await floor.task(), await floor.task()
    without = await floor.task(agent_type=None)
    async with floor.dispatching():
        await floor.house.tasks.delete(floor.house.me, TaskDelete(task_id=task.id))
        await floor.house.boards.delete(floor.house.me, BoardDelete(board_id=floor.board_id))
    left = [
        item.task_id
        for item in floor.house.events
        if item.action == "orchestrator.updated" and msgspec.json.decode(item.payload)["entry"] is None
    ]
    assert left == [task.id, other.id]
    assert without.id not in left


# --- claims -----------------------------------------------------------------------------------------------------------


async def test_a_launch_takes_a_task_out_of_the_queue(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
    task = await floor.task()
    async with floor.dispatching():
        agent = await floor.launch(task)
        assert await floor.entry(task) is None
        await floor.house.orchestrator.resume(floor.house.me, OrchestratorResume())
        await floor.looked()
    assert [run.id for run in await floor.runs(task)] == [agent.id]


async def test_a_start_by_hand_claims_the_entry_and_is_tried_again_by_the_queue(open_floor: Any) -> None:
    async with open_floor(backoff_s=0.01) as floor:
        await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
        task = await floor.task("exit 7")
        async with floor.dispatching():
            queued = await floor.entry(task)
            agent = await floor.start(task)
            entry = await floor.entry(task)
            assert (entry.agent_id, entry.fence, entry.created_at) == (agent.id, queued.fence + 1, queued.created_at)
            await floor.became(task, "TODO")
            await floor.house.orchestrator.resume(floor.house.me, OrchestratorResume())
            await floor.run_became(task, 2)


async def test_a_run_that_was_started_with_another_type_is_tried_again_with_that(open_floor: Any) -> None:
    async with open_floor(backoff_s=0.01) as floor, floor.dispatching():
        task = await floor.task("exit 7", agent_type=None)
        await floor.start(task, agent_type="demo", preset="contained")
        again = await floor.run_became(task, 2)
        assert (again.agent_type, (await floor.entry(task)).preset) == ("demo", "contained")


async def test_a_task_with_a_live_agent_is_started_by_nobody_else(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task()
        agent = await floor.run_became(task, activity="prompting")
        for ask in (floor.launch, floor.start, lambda task: trigger(floor, task)):
            with pytest.raises(Conflict) as caught:
                await ask(task)
            assert caught.value.details["agent_id"] == agent.id


# --- actions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["BLOCKED", "COMPLETED", "FAILED", "CANCELLED", "IN_PROGRESS"])
async def test_a_trigger_queues_a_task_from_any_state(floor: Any, state: str) -> None:
    task = await floor.task("say: done", agent_type=None)
    await floor.set_state(task, state)
    async with floor.dispatching():
        reply = await trigger(floor, task, agent_type="demo")
        assert (reply.task.id, reply.agent.task_id, reply.entry.state) == (task.id, task.id, "running")
        await floor.became(task, "COMPLETED")


async def test_a_trigger_starts_the_attempts_anew_and_waits_for_no_backoff(open_floor: Any) -> None:
    async with open_floor(backoff_s=1000.0, backoff_limit_s=1000.0) as floor, floor.dispatching():
        task = await floor.task("exit 7")
        await floor.became(task, "TODO")
        await floor.looked()
        assert ((await status(floor)).queued, (await status(floor)).retries) == (1, 1)
        reply = await trigger(floor, task)
        assert reply.agent.attempt == 1
        assert len(await floor.runs(task)) == 2


async def test_a_trigger_of_what_must_wait_says_for_what(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
    async with floor.dispatching():
        reply = await trigger(floor, await floor.task())
    assert (reply.agent, reply.entry.position, reply.entry.waiting_for.kind) == (None, 0, "paused")


async def test_a_trigger_needs_a_task_and_an_agent_type(floor: Any) -> None:
    task = await floor.task(agent_type=None)
    with pytest.raises(ValidationFailed) as caught:
        await trigger(floor, task)
    with pytest.raises(NotFound):
        await trigger(floor, task, agent_type="nobody")
    with pytest.raises(NotFound):
        await trigger(floor, type("Gone", (), {"id": "no-such-task"}))
    assert caught.value.details["field"] == "agent_type"
    assert (await floor.row(task)).version == task.version


@pytest.mark.parametrize("ask", [OrchestratorStop, OrchestratorComplete])
async def test_a_queued_task_that_is_stopped_or_completed_leaves_the_queue(floor: Any, ask: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
    task = await floor.task()
    async with floor.dispatching():
        method = "stop" if ask is OrchestratorStop else "complete"
        reply = await getattr(floor.house.orchestrator, method)(floor.house.me, ask(task_id=task.id))
        assert (reply.agent, await floor.entry(task)) == (None, None)
        assert reply.task.state == ("CANCELLED" if method == "stop" else "COMPLETED")
        with pytest.raises(Conflict):
            await getattr(floor.house.orchestrator, method)(floor.house.me, ask(task_id=task.id))


async def test_a_queued_task_has_no_agent_to_prompt(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
    task = await floor.task()
    with pytest.raises(Conflict):
        await floor.house.orchestrator.prompt(floor.house.me, OrchestratorPrompt(task_id=task.id, prompt="hello"))


async def test_a_pause_outlives_the_host_and_keeps_what_runs(open_floor: Any) -> None:
    async with open_floor() as floor, floor.dispatching():
        running = await floor.task()
        await floor.run_became(running, activity="prompting")
        reply = await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
        waiting = await floor.task("say: done")
        await floor.looked()
        assert (reply.paused, reply.paused_by, reply.running) == (True, floor.house.me.id, 1)
        assert await floor.runs(waiting) == []
    async with open_floor() as floor, floor.dispatching():
        assert (await status(floor)).paused
        assert {item.waiting_for.kind for item in await floor.queue()} == {"paused"}
        reply = await floor.house.orchestrator.resume(floor.house.me, OrchestratorResume())
        assert (reply.paused, reply.paused_at) == (False, None)
        await floor.became(waiting, "COMPLETED")


async def test_the_status_counts_by_type_and_tells_capacity(open_floor: Any) -> None:
    async with open_floor(max_agents=1) as floor, floor.dispatching():
        await floor.run_became(await floor.task(), activity="prompting")
        await floor.task()
        await floor.looked()
        found = await status(floor)
    assert (found.running, found.queued, found.retries) == (1, 1, 0)
    assert (found.capacity.limit, found.capacity.used, found.capacity.free) == (1, 1, 0)
    assert [(item.agent_type, item.running, item.queued) for item in found.agent_types] == [("demo", 1, 1)]


async def test_the_status_counts_tasks_whose_agent_type_is_there_no_more(open_floor: Any) -> None:
    async with open_floor(attempts=3) as floor:
        for name in ("gone", "gone", "lost"):
            task = await floor.task(agent_type=None)
            await floor.house.journal.record(Put(replace(task, agent_type=name)))
        async with floor.dispatching():
            found = await status(floor)
    assert found.attempts == 3
    assert {item.agent_type: item.queued for item in found.agent_types} == {"gone": 2, "lost": 1}


async def test_the_queue_is_paged_and_narrowed_to_a_board(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
    tasks = [await floor.task(f"task {number}") for number in range(5)]
    async with floor.dispatching():
        seen: list[tuple[str, int]] = []
        cursor = None
        while True:
            request = OrchestratorQueue(limit=2, cursor=cursor)
            page = await floor.house.orchestrator.queue(floor.house.me, request)
            seen += [(item.task_id, item.position) for item in page.entries]
            cursor = page.next_cursor
            if cursor is None:
                break
        request = OrchestratorQueue(board_id=floor.board_id)
        here = await floor.house.orchestrator.queue(floor.house.me, request)
    assert seen == [(task.id, number) for number, task in enumerate(tasks)]
    assert [item.position for item in here.entries] == [0, 1, 2, 3, 4]


async def test_the_queue_survives_a_store_that_is_busy(floor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look that failed is made again, and nothing is lost."""
    from kandev_host.errors import Busy

    begin = floor.house.agents.begin
    refused: list[bool] = []

    async def busy_once(*arguments: Any, **more: Any) -> Any:
        if not refused:
            refused.append(True)
            raise Busy("The database is locked")
        return await begin(*arguments, **more)

    monkeypatch.setattr(floor.house.agents, "begin", busy_once)
    async with floor.dispatching():
        await floor.became(await floor.task("say: done"), "COMPLETED")
    assert refused


async def test_once_a_pause_is_acknowledged_nothing_more_is_started(open_floor: Any) -> None:
    async with open_floor(max_agents=12) as floor, floor.dispatching():
        await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
        tasks = [await floor.task() for _ in range(12)]
        async with anyio.create_task_group() as group:
            group.start_soon(floor.house.orchestrator.resume, floor.house.me, OrchestratorResume())
            await floor.until(lambda action, payload: action == "agent.updated")
            await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
        begun = len(await live(floor))
        await floor.looked()
        assert 0 < begun < len(tasks)
        assert len(await live(floor)) == begun


async def test_a_blocker_named_after_the_queue_has_looked_is_heeded(floor: Any) -> None:
    async with floor.dispatching():
        await floor.house.orchestrator.pause(floor.house.me, OrchestratorPause())
        blocker, task = await floor.task(agent_type=None), await floor.task()
        await floor.looked()
        seen = await floor.entry(task)
        assert seen is not None
        await floor.house.tasks.update(floor.house.me, TaskUpdate(task_id=task.id, blocked_by=[blocker.id]))
        request = AgentLaunch(task_id=task.id)
        with pytest.raises(Conflict):
            await floor.house.agents.begin(floor.house.me, request, orchestrated=True, seen=seen)
        assert await floor.runs(task) == []
