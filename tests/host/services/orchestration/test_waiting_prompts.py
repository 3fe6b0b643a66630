"""The prompts that wait for an agent: as clients see them, and from one run to the next."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from kandev_agents.presets import DEMO
from kandev_host.errors import Conflict, NotFound, ValidationFailed
from kandev_host.interfaces import AgentType, Put
from kandev_host.models import AgentInstance, PermissionRequest, Session, Task, Turn, now
from kandev_host.protocol.actions.agents import AgentPrompt, AgentResume, AgentStop
from kandev_host.protocol.actions.orchestrator import OrchestratorComplete, OrchestratorStart, OrchestratorStop
from kandev_host.protocol.actions.queue import QueueList, QueueRemove, QueueUpdate
from kandev_host.settings import SessionSettings
from kandev_host.testing import scripted_agent

pytestmark = pytest.mark.anyio

with open(scripted_agent.__file__) as file:
    SOURCE = file.read()
SCRIPT = {"ignore_cancel": True, "initialize": {"agentCapabilities": {"loadSession": True}}, "load": {}}
STUBBORN = AgentType(name="stubborn", command=(sys.executable, "-I", "-S", "-c", SOURCE, json.dumps(SCRIPT)))
LAST_WORD = 'echo "did ${KANDEV_PROMPT##*[[:space:]]}"'
HANG = json.dumps([{"text": "no"}, {"hang": True}])


async def busy(floor: Any, *waiting: str, agent_type: str = "demo", prompt: str = "sleep 600") -> AgentInstance:
    """A person's agent in the middle of a turn, with prompts that wait for it."""
    task = await floor.task(agent_type=None)
    agent: AgentInstance = await floor.launch(task, agent_type=agent_type, prompt=prompt)
    await prompting(floor, agent.id)
    for text in waiting:
        await floor.house.agents.prompt(floor.house.me, AgentPrompt(agent_id=agent.id, prompt=text))
    return agent


async def prompting(floor: Any, agent_id: str) -> None:
    await floor.until(
        lambda action, payload: (
            action == "acp.status" and payload["agent_id"] == agent_id and payload["activity"] == "prompting"
        )
    )


async def listed(floor: Any, agent: AgentInstance) -> list[Any]:
    return list((await floor.house.prompt_queue.list(floor.house.me, QueueList(agent_id=agent.id))).prompts)


async def texts(floor: Any, agent: AgentInstance) -> list[str]:
    """What waits for this agent."""
    prompts = await listed(floor, agent)
    assert [prompt.position for prompt in prompts] == list(range(len(prompts)))
    return [prompt.prompt[0]["text"] for prompt in prompts]


async def resumed(floor: Any, agent: AgentInstance, prompt: str | None = None) -> AgentInstance:
    request = AgentResume(agent_id=agent.id, prompt=prompt)
    found: AgentInstance = (await floor.house.agents.resume(floor.house.me, request)).agent
    return found


async def result(floor: Any, agent: AgentInstance, summary: str) -> None:
    await floor.until(
        lambda action, payload: (
            action == "acp.result" and payload["agent_id"] == agent.id and payload["summary"] == summary
        )
    )


@asynccontextmanager
async def next_host(open_floor: Any, **how: Any) -> Any:
    """On the same data, after it has looked at what the one before left."""
    async with open_floor(**how) as floor:
        await floor.house.recovery.reconcile()
        yield floor


# --- the actions --------------------------------------------------------------------------------------------------


async def test_prompts_that_wait_are_listed_changed_and_taken_out(floor: Any) -> None:
    queue, me = floor.house.prompt_queue, floor.house.me
    agent = await busy(floor, "say: one", "say: two", "say: three")
    one, two, three = [prompt.prompt_id for prompt in await listed(floor, agent)]
    reply = await queue.update(me, QueueUpdate(prompt_id=three, prompt="say: 3", position=0))
    assert [prompt.prompt[0]["text"] for prompt in reply.prompts] == ["say: 3", "say: one", "say: two"]
    reply = await queue.remove(me, QueueRemove(prompt_id=one))
    assert [prompt.prompt_id for prompt in reply.prompts] == [three, two]
    assert await texts(floor, agent) == ["say: 3", "say: two"]


async def test_what_is_wrong_with_a_request_is_told(floor: Any) -> None:
    queue, me = floor.house.prompt_queue, floor.house.me
    agent = await busy(floor, "say: one")
    (one,) = await listed(floor, agent)
    (running,) = (await floor.house.store.find(Turn, [("state", "=", "running")])).rows
    with pytest.raises(NotFound, match="No agent"):
        await queue.list(me, QueueList(agent_id="nobody"))
    with pytest.raises(NotFound, match="No prompt"):
        await queue.remove(me, QueueRemove(prompt_id="nothing"))
    with pytest.raises(ValidationFailed, match="a prompt, a position, or both"):
        await queue.update(me, QueueUpdate(prompt_id=one.prompt_id))
    with pytest.raises(ValidationFailed, match="empty"):
        await queue.update(me, QueueUpdate(prompt_id=one.prompt_id, prompt="  "))
    with pytest.raises(Conflict, match="has begun"):
        await queue.update(me, QueueUpdate(prompt_id=running.id, position=0))
    await queue.remove(me, QueueRemove(prompt_id=one.prompt_id))
    with pytest.raises(Conflict, match="is over") as refused:
        await queue.remove(me, QueueRemove(prompt_id=one.prompt_id))
    assert refused.value.details["state"] == "cancelled"


async def test_what_outlived_its_run_is_listed_changed_and_taken_out_as_well(open_floor: Any) -> None:
    async with open_floor() as floor:
        agent = await busy(floor, "say: one", "say: two", "say: three")
    async with next_host(open_floor) as floor:
        queue, me = floor.house.prompt_queue, floor.house.me
        one, two, _ = await listed(floor, agent)
        await queue.remove(me, QueueRemove(prompt_id=two.prompt_id))
        await queue.update(me, QueueUpdate(prompt_id=one.prompt_id, position=1))
        assert await texts(floor, agent) == ["say: three", "say: one"]


# --- from one run to the next ---------------------------------------------------------------------------------------


async def test_a_resume_takes_over_what_waits_and_its_own_prompt_comes_last(open_floor: Any) -> None:
    async with open_floor() as floor:
        before = await busy(floor, "say: one", "say: two")
    async with next_host(open_floor) as floor:
        after = await resumed(floor, before, "say: three")
        assert await texts(floor, before) == []
        await result(floor, after, "three")
        turns = (await floor.house.store.find(Turn, [("agent_id", "=", after.id)], order=("started_at",))).rows
        assert [turn.prompt[0]["text"] for turn in turns] == ["say: one", "say: two", "say: three"]


async def test_the_commit_that_begins_a_run_moves_what_waits(open_floor: Any) -> None:
    """The next event after the agent's own is that of its prompts: nothing is in two places, or in none."""
    async with open_floor() as floor:
        before = await busy(floor, "say: one")
    async with next_host(open_floor) as floor:
        after = await resumed(floor, before)
        told = [item for item in floor.house.events if item.action in {"agent.updated", "queue.updated"}]
        first = next(at for at, item in enumerate(told) if item.agent_id == after.id)
        assert [(item.action, item.agent_id) for item in told[first : first + 3]] == [
            ("agent.updated", after.id),
            ("queue.updated", after.id),
            ("queue.updated", before.id),
        ]


async def test_a_run_that_never_began_is_resumed_with_its_prompt(floor: Any) -> None:
    task = await floor.task(agent_type=None)
    agent = AgentInstance(task_id=task.id, agent_type="demo", runtime="bwrap", status="FAILED")
    waits = Turn(agent_id=agent.id, task_id=task.id, prompt=[{"type": "text", "text": "say: hello"}], created_by="me")
    await floor.house.journal.record(Put(agent), Put(waits))
    after = await resumed(floor, agent)
    await result(floor, after, "hello")
    assert (after.resumed_from, (await floor.house.store.get(Turn, waits.id)).agent_id) == (None, after.id)


async def test_the_queues_next_attempt_begins_with_the_task_and_sends_what_waits(open_floor: Any) -> None:
    async with open_floor() as floor, floor.dispatching():
        task = await floor.task("say: before\nrun: until test -e go; do sleep 0.05; done")
        run = await floor.run_became(task, activity="prompting")
        await floor.house.agents.prompt(floor.house.me, AgentPrompt(agent_id=run.id, prompt="say: behind"))
        await floor.house.supervisor.shutdown()
    async with next_host(open_floor) as floor:
        await floor.touch(task, "go")
        async with floor.dispatching():
            await floor.became(task, "COMPLETED")
        again = (await floor.runs(task))[-1]
        turns = (await floor.house.store.find(Turn, [("agent_id", "=", again.id)], order=("started_at",))).rows
        assert [turn.prompt[0]["text"].splitlines()[0] for turn in turns] == ["say: before", "say: behind"]


async def test_a_task_that_still_waits_is_not_sent_twice(open_floor: Any) -> None:
    """Its first run ended before it had begun."""
    async with open_floor() as floor, floor.dispatching():
        task = await floor.task("say: once")
        await floor.run_became(task, status="PENDING")
        await floor.house.supervisor.shutdown()
    async with next_host(open_floor) as floor, floor.dispatching():
        await floor.became(task, "COMPLETED")
        turns = (await floor.house.store.find(Turn, [("task_id", "=", task.id)])).rows
        assert [turn.state for turn in turns if turn.started_at is not None][-1:] == ["ended"]
        assert [turn.state for turn in turns].count("queued") == 0


@pytest.mark.parametrize("ask", [OrchestratorStop, OrchestratorComplete])
async def test_a_task_that_is_stopped_or_completed_takes_what_outlived_its_runs_with_it(
    open_floor: Any, ask: Any
) -> None:
    async with open_floor() as floor:
        task = await floor.task("sleep 600")
        run = await floor.start(task)
        await prompting(floor, run.id)
        await floor.house.agents.prompt(floor.house.me, AgentPrompt(agent_id=run.id, prompt="say: one"))
    async with next_host(open_floor) as floor:
        assert await texts(floor, run) == ["say: one"]
        name = "stop" if ask is OrchestratorStop else "complete"
        await getattr(floor.house.orchestrator, name)(floor.house.me, ask(task_id=task.id))
        assert await texts(floor, run) == []


async def test_a_task_that_is_stopped_takes_the_questions_that_outlived_its_runs_with_it(floor: Any) -> None:
    task = await floor.task("say: x", agent_type=None)
    agent = AgentInstance(task_id=task.id, agent_type="demo", runtime="plain", status="FAILED", failure="host_died")
    ids = {"agent_id": agent.id, "task_id": task.id}
    session = Session(**ids, acp_session_id="s", cwd="/workspace", protocol_version=1)
    asked = PermissionRequest(**ids, session_id=session.id, tool_call={"toolCallId": "1"}, options=[], digest="")
    agent = replace(agent, session_id=session.id)
    await floor.house.journal.record(Put(agent), Put(session), Put(asked))
    await floor.house.orchestrator.stop(floor.house.me, OrchestratorStop(task_id=task.id))
    assert (await floor.house.store.get(PermissionRequest, asked.id)).state == "cancelled"


async def test_who_launches_an_agent_anew_leaves_what_waits_where_it_is(open_floor: Any) -> None:
    async with open_floor() as floor:
        before = await busy(floor, "say: one")
    async with next_host(open_floor) as floor:
        task = await floor.house.store.get(Task, before.task_id)
        after = await floor.launch(task, agent_type="demo", prompt="say: new")
        await result(floor, after, "new")
        assert (await texts(floor, before), await texts(floor, after)) == (["say: one"], [])


async def test_somebody_who_stops_a_run_on_its_way_up_cancels_what_waits_for_it(floor: Any) -> None:
    task = await floor.task(agent_type=None)
    agent = await floor.launch(task, agent_type="demo", prompt="say: hello")
    await floor.house.agents.stop(floor.house.me, AgentStop(agent_id=agent.id))
    (turn,) = (await floor.house.store.find(Turn, [("agent_id", "=", agent.id)])).rows
    assert turn.state == "cancelled"


# --- an interrupt that is not obeyed ----------------------------------------------------------------------------------


@asynccontextmanager
async def stubborn(open_floor: Any) -> Any:
    async with open_floor(types=[DEMO, STUBBORN]) as floor:
        floor.house.supervisor._crew.settings = SessionSettings(cancel_grace_s=0.3, kill_grace_s=0.3)
        yield floor


async def test_an_interrupt_of_an_agent_that_ignores_cancel_is_sent_all_the_same(open_floor: Any) -> None:
    async with stubborn(open_floor) as floor:
        urgent, later = json.dumps([{"text": "urgent"}]), json.dumps([{"text": "later"}])
        before = await busy(floor, later, agent_type="stubborn", prompt=HANG)
        await floor.house.agents.prompt(
            floor.house.me, AgentPrompt(agent_id=before.id, prompt=urgent, mode="interrupt")
        )
        await floor.until(lambda action, payload: action == "acp.result" and payload["summary"] == "later")
        runs = await floor.house.store.find(AgentInstance, [("task_id", "=", before.task_id)])
        old, new = runs.rows
        assert (old.status, new.resumed_from, new.orchestrated) == ("FAILED", before.id, False)
        said = [item for item in floor.house.events if item.action == "acp.result" and item.agent_id == new.id]
        assert [json.loads(bytes(item.payload))["summary"] for item in said] == ["urgent", "later"]


async def test_an_orchestrated_run_that_is_interrupted_so_goes_on_without_failing_its_task(open_floor: Any) -> None:
    async with stubborn(open_floor) as floor:
        task = await floor.task(HANG, agent_type="stubborn")
        start = OrchestratorStart(task_id=task.id)
        run = (await floor.house.orchestrator.start(floor.house.me, start)).agent
        await floor.until(lambda action, payload: action == "acp.log" and payload["message"] == "no")
        urgent = AgentPrompt(agent_id=run.id, prompt=json.dumps([{"text": "urgent"}]), mode="interrupt")
        await floor.house.agents.prompt(floor.house.me, urgent)
        await floor.became(task, "COMPLETED")
        states = [item for item in floor.house.events if item.action == "task.state_changed"]
        assert [json.loads(bytes(item.payload))["new_state"] for item in states] == ["IN_PROGRESS", "COMPLETED"]
        await floor.run_became(task, status="COMPLETED")
        assert [(each.status, each.attempt) for each in await floor.runs(task)] == [("FAILED", 1), ("COMPLETED", 1)]


async def test_an_interrupt_whose_run_cannot_be_resumed_waits(open_floor: Any, monkeypatch: Any) -> None:
    async with stubborn(open_floor) as floor:
        before = await busy(floor, agent_type="stubborn", prompt=HANG)
        monkeypatch.setattr(floor.house.services.agents, "_check_available", unavailable)
        urgent = AgentPrompt(agent_id=before.id, prompt="urgent", mode="interrupt")
        await floor.house.agents.prompt(floor.house.me, urgent)
        await floor.became(await floor.house.store.get(Task, before.task_id), "FAILED")
        assert await texts(floor, before) == ["urgent"]


async def unavailable(*_: Any) -> None:
    raise Conflict("not just now", state="test")


async def test_prompts_for_a_program_that_takes_one_are_sent_one_after_the_other(open_floor: Any) -> None:
    """As `auto` may find out only when several wait."""
    async with open_floor(types=[DEMO]) as floor:
        before = await busy(floor, "one", "two")
    printing = replace(DEMO, dialect="lines", command=("sh", "-c", LAST_WORD))
    async with next_host(open_floor, types=[printing]) as floor:
        await resumed(floor, before, "three")
        await floor.until(lambda action, payload: action == "acp.result" and payload["summary"] == "did three")
        turns = (await floor.house.store.find(Turn, [("task_id", "=", before.task_id)])).rows
        assert sorted(turn.state for turn in turns) == ["ended", "ended", "ended", "failed"]


# --- what it may do ---------------------------------------------------------------------------------------------------


async def ended(floor: Any, **preset: Any) -> AgentInstance:
    """A run of a person's that had a session."""
    task = await floor.task(agent_type=None)
    agent = await floor.launch(task, agent_type="demo", prompt="say: hello", **preset)
    await result(floor, agent, "hello")
    row: AgentInstance = (await floor.house.agents.stop(floor.house.me, AgentStop(agent_id=agent.id))).agent
    return row


@pytest.mark.parametrize("preset", ["ask", "read-only", "contained"])
async def test_a_resume_keeps_the_preset(floor: Any, preset: Any) -> None:
    before = await ended(floor, preset=preset)
    after = await resumed(floor, before)
    assert (before.preset, after.preset, after.preset_expires_at) == (preset, preset, None)


async def test_a_resume_of_an_unattended_run_gets_no_more_time(floor: Any) -> None:
    before = await ended(floor, preset="unattended")
    assert before.preset_expires_at is not None
    after = await resumed(floor, before)
    assert after.preset == "unattended"
    assert abs((after.preset_expires_at - before.preset_expires_at).total_seconds()) < 1


async def test_an_unattended_run_whose_time_is_over_is_resumed_as_one_that_asks(floor: Any) -> None:
    before = await ended(floor, preset="unattended")
    await floor.house.journal.record(Put(replace(before, preset_expires_at=now())))
    after = await resumed(floor, before)
    assert (after.preset, after.preset_expires_at) == ("ask", None)


async def test_a_preset_that_does_not_fit_any_more_is_one_that_asks(open_floor: Any) -> None:
    async with open_floor() as floor:
        before = await ended(floor, preset="unattended")
    async with open_floor(types=[replace(DEMO, network="host")]) as floor:
        after = await resumed(floor, before)
        assert after.preset == "ask"
