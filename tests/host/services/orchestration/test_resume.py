"""Going on where a run ended: by hand, and by the queue."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.errors import Conflict
from kandev_host.interfaces import Put
from kandev_host.models import AgentInstance, Limits, Session, Task
from kandev_host.protocol.actions.agents import AgentLaunch, AgentPrompt, AgentResume, AgentStop
from kandev_host.protocol.actions.orchestrator import OrchestratorTrigger
from kandev_host.services.resume import Resumer

pytestmark = pytest.mark.anyio


async def sessions(floor: Any, task: Task) -> list[Session]:
    """Of its runs, in order."""
    return list((await floor.house.store.find(Session, [("task_id", "=", task.id)])).rows)


async def ended(floor: Any, task: Task, prompt: str = "say: hello") -> AgentInstance:
    """A run that a person launched, prompted and stopped."""
    house = floor.house
    agent = (await house.agents.launch(house.me, AgentLaunch(task_id=task.id, agent_type="demo", prompt=prompt))).agent
    await floor.until(lambda action, payload: action == "acp.result" and payload["agent_id"] == agent.id)
    return (await house.agents.stop(house.me, AgentStop(agent_id=agent.id))).agent


async def resume(floor: Any, agent: AgentInstance, prompt: str | None = None) -> AgentInstance:
    found: AgentInstance = (
        await floor.house.agents.resume(floor.house.me, AgentResume(agent_id=agent.id, prompt=prompt))
    ).agent
    return found


async def test_agent_resume_goes_on_with_the_session(floor: Any) -> None:
    task = await floor.task(agent_type=None)
    before = await ended(floor, task)
    assert (await floor.row(task)).state == "CANCELLED"
    after = await resume(floor, before, "say: again")
    assert (after.resumed_from, after.agent_type, after.orchestrated) == (before.id, "demo", False)
    await floor.until(lambda action, payload: action == "acp.result" and payload["agent_id"] == after.id)
    old, new = await sessions(floor, task)
    assert (new.opened, new.acp_session_id, new.agent_id) == ("resume", old.acp_session_id, after.id)
    assert (await floor.row(task)).state == "IN_PROGRESS"


async def test_a_resumed_agent_has_the_limits_that_its_run_had(floor: Any) -> None:
    house, task = floor.house, await floor.task(agent_type=None)
    launch = AgentLaunch(task_id=task.id, agent_type="demo", prompt="say: hello", resources=Limits(memory_limit="300m"))
    agent = (await house.agents.launch(house.me, launch)).agent
    await floor.until(lambda action, payload: action == "acp.result" and payload["agent_id"] == agent.id)
    after = await resume(floor, (await house.agents.stop(house.me, AgentStop(agent_id=agent.id))).agent)
    assert after.resource_limits.memory_limit == "300m"


async def test_a_resumed_agent_without_a_prompt_waits_for_one(floor: Any) -> None:
    after = await resume(floor, await ended(floor, await floor.task(agent_type=None)))
    await floor.until(
        lambda action, payload: (
            action == "agent.updated" and payload["agent_id"] == after.id and payload["agent"]["activity"] == "idle"
        )
    )
    await floor.house.agents.prompt(floor.house.me, AgentPrompt(agent_id=after.id, prompt="say: now"))
    await floor.until(lambda action, payload: action == "acp.result" and payload["agent_id"] == after.id)


async def test_a_live_agent_is_prompted_instead(floor: Any) -> None:
    task = await floor.task(agent_type=None)
    launch = AgentLaunch(task_id=task.id, agent_type="demo")
    agent = (await floor.house.agents.launch(floor.house.me, launch)).agent
    with pytest.raises(Conflict, match="prompt it instead"):
        await resume(floor, agent)


async def test_a_run_that_never_had_a_session_is_not_resumed(floor: Any) -> None:
    task = await floor.task(agent_type=None)
    agent = AgentInstance(task_id=task.id, agent_type="demo", runtime="bwrap", status="FAILED")
    await floor.house.journal.record(Put(agent))
    with pytest.raises(Conflict, match="has no session"):
        await resume(floor, agent)


async def test_the_next_host_goes_on_with_a_run_in_the_same_session(open_floor: Any) -> None:
    async with open_floor() as floor:
        async with floor.dispatching():
            task = await floor.task("say: before\nsleep 60")
            await floor.run_became(task, activity="prompting")
        run = (await floor.runs(task))[0]
    async with open_floor() as floor:
        await floor.house.recovery.reconcile()
        entry = await floor.entry(task)
        assert entry.resume_from == run.id
        async with floor.dispatching():
            again = await floor.until(
                lambda action, payload: (
                    action == "agent.updated"
                    and payload["agent"]["resumed_from"] == run.id
                    and payload["agent"]["activity"] == "prompting"
                )
            )
        old, new = await sessions(floor, task)
        assert (new.agent_id, new.opened) == (again["agent_id"], "resume")
        assert new.acp_session_id == old.acp_session_id


async def test_a_run_that_breaks_again_in_a_resumed_session_gets_a_new_one(open_floor: Any, clock: Any) -> None:
    async with open_floor(clock=clock) as floor, floor.dispatching():
        task = await floor.task("say: before\nexit 3")
        for attempt in (1, 2, 3):
            await floor.run_became(task, attempt, status="FAILED")
            await floor.looked()
            clock.advance(60.1)
        runs = sorted(await floor.runs(task), key=lambda run: run.attempt)
        assert [run.resumed_from for run in runs[:3]] == [None, runs[0].id, None]


async def test_who_triggers_a_task_anew_begins_anew(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task("say: before\nexit 3")
        await floor.run_became(task, 1, status="FAILED")
        await floor.looked()
        assert (await floor.entry(task)).resume_from is not None
        await floor.house.orchestrator.trigger(floor.house.me, OrchestratorTrigger(task_id=task.id))
        runs = await floor.runs(task)
        assert runs[-1].resumed_from is None


async def test_what_was_said_in_all_the_runs_of_a_session_is_remembered(floor: Any) -> None:
    task = await floor.task(agent_type=None)
    first = await ended(floor, task, "say: alpha")
    second = await resume(floor, first, "say: beta")
    await floor.until(lambda action, payload: action == "acp.result" and payload["agent_id"] == second.id)
    second = (await floor.house.agents.stop(floor.house.me, AgentStop(agent_id=second.id))).agent
    found = (await Resumer(floor.house.store, floor.house.usage).need(second)).resume
    assert found is not None
    assert [found.transcript.index(said) for said in ("say: alpha", "say: beta")] == sorted(
        found.transcript.index(said) for said in ("say: alpha", "say: beta")
    )
    assert found.standing.cost is not None
