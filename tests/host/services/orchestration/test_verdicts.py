"""What a finished turn and the end of a run mean for the task: the rule alone, then real runs in the jail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from kandev_host.errors import Conflict
from kandev_host.models import AgentInstance, AgentStatus
from kandev_host.protocol.actions.agents import AgentCancel, AgentPrompt, AgentStop
from kandev_host.protocol.actions.orchestrator import OrchestratorComplete, OrchestratorPrompt, OrchestratorStop
from kandev_host.protocol.actions.tasks import TaskEvents
from kandev_host.services.orchestration.verdict import REVIEW, Verdict, done, of_run, of_turn
from kandev_host.sessions.turns import TurnOutcome

pytestmark = pytest.mark.anyio


def run(status: AgentStatus = "RUNNING", *, orchestrated: bool = True) -> AgentInstance:
    return AgentInstance(task_id="t", agent_type="a", runtime="r", status=status, orchestrated=orchestrated)


# --- the rule ---------------------------------------------------------------------------------------------------------


def test_a_turn_that_ended_well_completes_the_task_or_leaves_it_for_review() -> None:
    assert of_turn(run(), TurnOutcome(result="completed"), auto_complete=True) == Verdict("COMPLETED")
    assert of_turn(run(), TurnOutcome(result="completed"), auto_complete=False) == Verdict("BLOCKED", REVIEW)


def test_a_turn_of_a_launched_agent_ends_no_task() -> None:
    assert of_turn(run(orchestrated=False), TurnOutcome(result="completed"), auto_complete=True) is None


@pytest.mark.parametrize("result", ["refused", "max_tokens", "max_turn_requests", "cancelled"])
@pytest.mark.parametrize("orchestrated", [True, False])
def test_a_turn_that_needs_a_person_blocks_the_task_and_says_why(result: Any, orchestrated: bool) -> None:
    found = of_turn(run(orchestrated=orchestrated), TurnOutcome(result=result), auto_complete=True)
    assert found is not None
    assert found.state == "BLOCKED"
    assert found.reason


def test_a_cancel_that_somebody_asked_for_changes_nothing() -> None:
    assert of_turn(run(), TurnOutcome(result="cancelled", asked_to_cancel=True), auto_complete=True) is None


@pytest.mark.parametrize("result", ["failed", "empty"])
def test_a_failed_or_empty_turn_is_judged_with_its_run(result: Any) -> None:
    assert of_turn(run(), TurnOutcome(result=result), auto_complete=True) is None


def ended(status: AgentStatus, *, orchestrated: bool = True, by_person: bool = False, holds_lease: bool = True) -> Any:
    agent = run(status, orchestrated=orchestrated)
    found = of_run(agent, "why", by_person=by_person, holds_lease=holds_lease, auto_complete=True)
    return found.state if isinstance(found, Verdict) else found


def test_the_end_of_a_run() -> None:
    assert ended("FAILED") == ended("FAILED", orchestrated=False) == "FAILED"
    assert ended("STOPPED", by_person=True) == "CANCELLED"
    assert ended("STOPPED") == "requeue"
    assert ended("STOPPED", holds_lease=False) == "BLOCKED"
    assert ended("COMPLETED") == done(auto_complete=True).state
    assert ended("COMPLETED", holds_lease=False) is None
    assert ended("STOPPED", orchestrated=False, holds_lease=False) == "BLOCKED"


def test_the_want_of_a_log_in_needs_a_person() -> None:
    agent = replace(run("FAILED"), failure="login")
    found = of_run(agent, "To log in: …", by_person=False, holds_lease=True, auto_complete=True)
    assert found == Verdict("BLOCKED", "To log in: …", ("IN_PROGRESS", "BLOCKED"))


@pytest.mark.parametrize("status", ["STOPPED", "FAILED"])
@pytest.mark.parametrize("orchestrated", [True, False])
def test_what_a_person_stops_is_cancelled_however_it_ends(status: AgentStatus, orchestrated: bool) -> None:
    assert ended(status, orchestrated=orchestrated, by_person=True, holds_lease=orchestrated) == "CANCELLED"


def test_a_run_that_ended_well_before_a_person_stopped_it_has_ended_well() -> None:
    assert ended("COMPLETED", by_person=True) == "COMPLETED"


# --- real runs --------------------------------------------------------------------------------------------------------


async def test_a_good_turn_completes_its_task_and_leaves_the_queue(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.scripted({"text": "done"})
        await floor.became(task, "COMPLETED")
        await floor.run_became(task, status="COMPLETED")
    assert await floor.entry(task) is None


async def test_an_orchestrated_run_that_needs_a_log_in_blocks_its_task(floor: Any) -> None:
    """It is not tried again, and says what to do."""
    async with floor.dispatching():
        task = await floor.scripted({"error": {"code": -32000, "message": "Authentication required"}})
        blocked = await floor.became(task, "BLOCKED")
    assert "To log in: " in blocked.state_reason
    assert [(agent.status, agent.failure) for agent in await floor.runs(task)] == [("FAILED", "login")]
    assert await floor.entry(task) is None


async def test_without_auto_complete_the_work_waits_for_review(open_floor: Any) -> None:
    async with open_floor(auto_complete=False) as floor, floor.dispatching():
        task = await floor.scripted({"text": "done"})
        assert (await floor.became(task, "BLOCKED")).state_reason == REVIEW


@pytest.mark.parametrize("reason", ["refusal", "max_tokens", "max_turn_requests", "cancelled"])
async def test_a_stop_reason_that_needs_a_person_blocks_the_task(floor: Any, reason: str) -> None:
    async with floor.dispatching():
        task = await floor.scripted({"text": "hm"}, {"stop": reason})
        assert (await floor.became(task, "BLOCKED")).state_reason
    assert len(await floor.runs(task)) == 1


@pytest.mark.parametrize(
    "steps",
    [
        [{"stop": "end_turn"}],
        [{"text": "Credit balance is too low"}],
        [{"error": {"code": -32603, "message": "no"}}],
    ],
    ids=["empty", "error as text", "error"],
)
async def test_an_empty_turn_and_a_model_error_as_text_are_no_success(floor: Any, steps: list[dict[str, Any]]) -> None:
    async with floor.dispatching():
        task = await floor.scripted(*steps)
        failed = await floor.became(task, "FAILED")
        await floor.looked()
    assert failed.state_reason
    assert len(await floor.runs(task)) == 1


async def test_cancelling_the_turn_leaves_the_task_in_progress_and_its_agent_idle(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task()
        agent = await floor.run_became(task, activity="prompting")
        await floor.house.agents.cancel(floor.house.me, AgentCancel(agent_id=agent.id))
        await floor.until(lambda action, payload: action == "acp.result")
        await floor.looked()
        assert (await floor.row(task)).state == "IN_PROGRESS"
        assert floor.house.agents.alive(agent.id)
        await floor.house.orchestrator.prompt(floor.house.me, OrchestratorPrompt(task_id=task.id, prompt="say: done"))
        await floor.became(task, "COMPLETED")


async def test_an_agent_that_a_person_stops_cancels_its_task_and_does_not_come_back(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task()
        agent = await floor.run_became(task, activity="prompting")
        await floor.house.agents.stop(floor.house.me, AgentStop(agent_id=agent.id))
        assert (await floor.row(task)).state == "CANCELLED"
        await floor.looked()
    assert len(await floor.runs(task)) == 1
    assert await floor.entry(task) is None


@pytest.mark.parametrize("how", ["stop", "complete"])
async def test_a_run_that_a_person_ends_leaves_the_queue(floor: Any, how: str) -> None:
    ask = OrchestratorStop if how == "stop" else OrchestratorComplete
    async with floor.dispatching():
        task = await floor.task()
        await floor.run_became(task, activity="prompting")
        reply = await getattr(floor.house.orchestrator, how)(floor.house.me, ask(task_id=task.id))
        await floor.looked()
    assert reply.task.state == (await floor.row(task)).state == ("CANCELLED" if how == "stop" else "COMPLETED")
    assert await floor.entry(task) is None
    assert len(await floor.runs(task)) == 1


async def test_a_blocked_task_that_a_person_prompts_goes_on_with_its_agent(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task("refuse")
        await floor.became(task, "BLOCKED")
        await floor.house.orchestrator.prompt(floor.house.me, OrchestratorPrompt(task_id=task.id, prompt="say: well"))
        await floor.became(task, "COMPLETED")
    assert len(await floor.runs(task)) == 1


async def test_a_run_that_a_person_went_on_with_is_not_repeated_when_it_dies(floor: Any) -> None:
    async with floor.dispatching():
        task = await floor.task("refuse")
        agent = await floor.run_became(task, activity="idle")
        await floor.became(task, "BLOCKED")
        await floor.house.agents.prompt(floor.house.me, AgentPrompt(agent_id=agent.id, prompt="exit 7"))
        await floor.became(task, "FAILED")
        await floor.looked()
    assert len(await floor.runs(task)) == 1


# --- silence ----------------------------------------------------------------------------------------------------------


async def test_a_silent_agent_is_shown_as_stalled_and_no_more_once_it_talks(open_floor: Any) -> None:
    async with open_floor(stall_timeout_s=0.2) as floor, floor.dispatching():
        task = await floor.scripted({"text": "a"}, {"text": "b", "delay_s": 2}, {"sleep_s": 60})
        stalled = await floor.run_became(task, activity="prompting", status="RUNNING")
        await floor.until(lambda action, payload: action == "agent.updated" and payload["agent"]["stalled_at"])
        told: list[bool] = []

        def talks(action: str, payload: dict[str, Any]) -> bool:
            if action == "agent.updated":
                told.append(payload["agent"]["stalled_at"] is not None)
            return told[-2:] == [True, False]

        await floor.until(talks)  # soon it is silent again
        assert stalled.stalled_at is None
        assert (await floor.row(task)).state == "IN_PROGRESS"


async def test_a_stalled_agent_is_restarted_where_the_settings_say_so(open_floor: Any) -> None:
    async with open_floor(stall_timeout_s=0.3, stall_action="restart", backoff_s=0.01) as floor, floor.dispatching():
        task = await floor.scripted({"text": "a"}, {"hang": True})
        first = await floor.run_became(task, 1, status="FAILED")
        assert first.failure == "stalled"
        await floor.run_became(task, 2, activity="prompting")


async def test_a_stalled_turn_is_cancelled_where_the_settings_say_so(open_floor: Any) -> None:
    async with open_floor(stall_timeout_s=0.3, stall_action="cancel") as floor, floor.dispatching():
        task = await floor.scripted({"text": "a"}, {"sleep_s": 600})
        blocked = await floor.became(task, "BLOCKED")
        assert "said nothing" in blocked.state_reason
        assert floor.house.agents.alive((await floor.runs(task))[0].id)


async def test_a_task_is_completed_with_the_last_of_its_prompts(floor: Any) -> None:
    task = await floor.scripted({"text": "one"}, {"until_file": "/workspace/prompted"})
    async with floor.dispatching():
        agent = await floor.run_became(task, activity="prompting")
        second = json.dumps([{"text": "two"}, {"sleep_s": 60}])
        await floor.house.agents.prompt(floor.house.me, AgentPrompt(agent_id=agent.id, prompt=second))
        await floor.touch(task, "prompted")
        await floor.until(lambda action, payload: action == "acp.result")
        assert (await floor.row(task)).state == "IN_PROGRESS"
        await floor.house.agents.stop(floor.house.me, AgentStop(agent_id=agent.id))
        stopped = await floor.became(task, "CANCELLED")
    history = (await floor.house.tasks.events(floor.house.me, TaskEvents(task_id=stopped.id))).events
    assert history[-1].created_by == floor.house.me.id


async def test_a_prompt_to_an_agent_that_is_ending_leaves_the_task_as_it_is(open_floor: Any) -> None:
    async with open_floor() as floor, floor.dispatching():
        task = await floor.scripted({"text": "done"})
        agent = await floor.run_became(task, activity="prompting")
        await floor.became(task, "COMPLETED")
        with pytest.raises(Conflict):
            await floor.house.agents.prompt(floor.house.me, AgentPrompt(agent_id=agent.id, prompt="more"))
        assert (await floor.row(task)).state == "COMPLETED"
