"""Turns: from a prompt to what it came to."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

pytestmark = pytest.mark.anyio


async def run_turn(world: Any, prompt: Any, script: Any = None) -> str:
    agent_id = await world.start(script, prompt=prompt)
    await world.until("acp.status", lambda payload: payload["activity"] == "prompting")
    return agent_id


async def test_the_text_of_a_turn_arrives_in_order(world: Any) -> None:
    await run_turn(world, [{"text": "word {n} ", "repeat": 50}])
    await world.until("acp.result")
    assert world.texts() == [f"word {n} " for n in range(50)]


async def test_a_turn_with_text_is_completed_and_its_last_message_is_the_summary(world: Any) -> None:
    await run_turn(world, [{"text": "Looking."}, {"tool": {"toolCallId": "1", "title": "Look"}}, {"text": "Done."}])
    result = await world.until("acp.result")
    assert (result["status"], result["stop_reason"], result["summary"]) == ("completed", "end_turn", "Done.")


async def test_end_turn_without_a_word_is_no_success(world: Any) -> None:
    await run_turn(world, [{"thought": "hm"}, {"stop": "end_turn"}])
    result = await world.until("acp.result")
    assert result["status"] == "empty"
    assert (await world.turn()).state == "failed"


@pytest.mark.parametrize(
    ("stop_reason", "status"),
    [("refusal", "refused"), ("max_tokens", "max_tokens"), ("max_turn_requests", "max_turn_requests")],
)
async def test_other_stop_reasons_keep_their_names(world: Any, stop_reason: str, status: str) -> None:
    await run_turn(world, [{"text": "no"}, {"stop": stop_reason}])
    result = await world.until("acp.result")
    assert (result["status"], result["stop_reason"]) == (status, stop_reason)


async def test_an_error_answer_fails_the_turn_and_keeps_the_agent(world: Any) -> None:
    agent_id = await run_turn(world, [{"error": {"code": 400, "message": "model not found"}}])
    error = await world.until("acp.error")
    assert "model not found (400)" in error["message"]
    await world.prompt(agent_id, [{"text": "still here"}])
    assert (await world.until("acp.result"))["summary"] == "still here"


async def test_an_unknown_stop_reason_fails_the_turn(world: Any) -> None:
    await run_turn(world, [{"text": "hm"}, {"stop": "because"}])
    assert "because" in (await world.until("acp.error"))["message"]


async def test_prompts_wait_their_turn(world: Any) -> None:
    agent_id = await run_turn(world, [{"sleep_s": 0.1}, {"text": "one"}])
    await world.prompt(agent_id, [{"text": "two"}])
    await world.prompt(agent_id, [{"text": "three"}])
    await world.until("acp.result", lambda payload: payload["summary"] == "three")
    assert world.texts() == ["one", "two", "three"]


async def test_an_interrupt_cancels_the_turn_and_goes_first(world: Any) -> None:
    agent_id = await run_turn(world, [{"text": "working"}, {"sleep_s": 600}])
    await world.until("acp.log")
    await world.prompt(agent_id, [{"text": "second"}])
    await world.prompt(agent_id, [{"text": "urgent"}], mode="interrupt")
    await world.until("acp.result", lambda payload: payload["summary"] == "second")
    results = [(result["status"], result["summary"]) for result in world.payloads("acp.result")]
    assert results == [("cancelled", "working"), ("completed", "urgent"), ("completed", "second")]


async def test_cancel_ends_the_turn_and_keeps_the_agent(world: Any) -> None:
    agent_id = await run_turn(world, [{"text": "working"}, {"sleep_s": 600}])
    await world.until("acp.log")
    assert await world.supervisor.cancel(agent_id)
    result = await world.until("acp.result")
    assert (result["status"], result["stop_reason"]) == ("cancelled", "cancelled")
    assert world.supervisor.live(agent_id).agent.status == "RUNNING"


async def test_a_cancel_that_comes_before_the_agent_has_the_prompt_ends_the_turn(world: Any) -> None:
    """The sink hears of the turn before the run goes on."""
    agent_id = await world.start()
    await world.until_idle()
    async with anyio.create_task_group() as tasks:

        def on_event(event: Any) -> None:
            if event.action == "acp.status" and b'"activity":"prompting"' in bytes(event.payload):
                tasks.start_soon(world.supervisor.cancel, agent_id)

        world.bus.subscribe(["*"], on_event)
        await world.prompt(agent_id, [{"text": "never said"}, {"sleep_s": 600}])
        result = await world.until("acp.result")
    assert (result["status"], result["summary"], result["stop_reason"]) == ("cancelled", None, None)
    assert world.supervisor.live(agent_id).activity == "idle"


async def test_cancel_without_a_turn_does_nothing(world: Any) -> None:
    agent_id = await world.start()
    await world.until_idle()
    assert not await world.supervisor.cancel(agent_id)


async def test_an_agent_that_ignores_cancel_is_ended_with_the_reason(impatient_world: Any) -> None:
    world = impatient_world
    agent_id = await run_turn(world, [{"text": "working"}, {"hang": True}], {"ignore_cancel": True})
    await world.until("acp.log")
    await world.supervisor.cancel(agent_id)
    agent = await world.ended(agent_id)
    assert agent.status == "FAILED"
    assert "did not end its turn" in agent.error_message
    assert (await world.turn()).state == "cancelled"


async def test_tool_calls_left_open_are_closed_by_the_host(world: Any) -> None:
    await run_turn(world, [{"tool": {"toolCallId": "7", "title": "Build", "status": "in_progress"}}, {"text": "x"}])
    await world.until("acp.result")
    closed = [log for log in world.payloads("acp.log") if log["metadata"].get("by_host")]
    assert [log["update"] for log in closed] == [
        {"sessionUpdate": "tool_call_update", "toolCallId": "7", "status": "failed"}
    ]
    assert closed[0]["metadata"]["title"] == "Build"


async def test_tool_calls_that_ended_are_left_alone(world: Any) -> None:
    await run_turn(
        world,
        [{"tool_update": {"toolCallId": "7", "status": "completed"}}, {"tool": {"toolCallId": "7", "title": "Late"}}],
    )
    await world.until("acp.result")
    assert not [log for log in world.payloads("acp.log") if log["metadata"].get("by_host")]


async def test_late_updates_belong_to_the_session_and_not_to_the_turn(world: Any) -> None:
    await run_turn(world, [{"text": "in"}, {"after": [{"text": "late"}]}])
    late = await world.until("acp.log", lambda payload: payload["message"] == "late")
    assert late["turn_id"] is None
    await world.until("acp.result")
    assert (await world.turn()).state == "ended"


async def test_the_turn_row_tells_who_when_and_how(world: Any) -> None:
    agent_id = await run_turn(world, [{"text": "hello"}])
    await world.until("acp.result")
    turn = await world.turn()
    assert (turn.agent_id, turn.created_by, turn.state, turn.stop_reason) == (agent_id, "user", "ended", "end_turn")
    assert turn.session_id == (await world.session()).id
    assert turn.started_at <= turn.ended_at


async def test_a_late_tool_update_belongs_to_the_turn_that_began_it(world: Any) -> None:
    """Also when the next turn runs already: what that one did is another matter."""
    agent_id = await run_turn(world, [{"tool": {"toolCallId": "t1", "title": "Look"}}, {"text": "one"}])
    await world.until("acp.result")
    late = {"toolCallId": "t1", "status": "completed", "title": "Looked"}
    await world.prompt(agent_id, [{"tool_update": late}, {"stop": "end_turn"}])
    second = await world.until("acp.result", lambda payload: payload["status"] == "empty")
    first = world.payloads("acp.result")[0]
    told = [tool for tool in world.payloads("acp.log") if "Looked" in str(tool)][-1]
    assert (told["turn_id"], first["turn_id"] != second["turn_id"]) == (first["turn_id"], True)


async def test_a_broken_turn_policy_denies_the_turn_alone(world: Any) -> None:
    def broken(turn: Any, task: Any) -> Any:
        raise RuntimeError("a plugin's fault")

    agent_id = await world.start()
    await world.until_idle()
    world.supervisor._crew.turn_policies = [broken]
    await world.prompt(agent_id, "one")
    error = await world.until("acp.error")
    assert (error["code"], "a turn policy failed (a plugin's fault)" in error["message"]) == ("TURN_FAILED", True)
    world.supervisor._crew.turn_policies = []
    await world.prompt(agent_id, "two")
    assert (await world.until("acp.result"))["status"] == "completed"
