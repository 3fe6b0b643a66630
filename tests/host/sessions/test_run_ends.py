"""The end of a run: of what kind it is (P5, P7)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kandev_host.errors import Unavailable
from kandev_host.interfaces import Availability

pytestmark = pytest.mark.anyio


async def outcomes(world: Any) -> list[Any]:
    """What the services are told of ended turns."""
    told: list[Any] = []

    async def on_turn_end(_agent: Any, _turn: Any, outcome: Any) -> None:
        told.append(outcome)

    world.supervisor.on_turn_end = on_turn_end
    return told


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ({"start": [{"exit": 3}]}, "crash"),
        ({"after_new": [{"exit": 0}]}, "crash"),
        ({"start": [{"raw": "garbage\n", "repeat": 500}, {"hang": True}]}, "crash"),
        ({"initialize": {"protocolVersion": 2}}, "config"),
        ({"initialize": {"error": {"code": -32603, "message": "Something"}}}, "config"),
        ({"initialize": {"error": {"code": -32603, "message": "connect ECONNREFUSED 127.0.0.1:1"}}}, "unavailable"),
        ({"new": {"error": {"code": -32603, "message": "429 Too Many Requests"}}}, "rate_limit"),
        ({"new": {"sessionId": 7}}, "crash"),
    ],
)
async def test_a_run_that_breaks_by_itself_says_of_what_kind(world: Any, script: Any, failure: str) -> None:
    agent = await world.ended(await world.start(script))
    assert (agent.status, agent.failure) == ("FAILED", failure)


async def test_an_agent_that_closes_its_output_and_lives_on_has_crashed_with_its_turn(world: Any) -> None:
    agent_id = await world.start({"ignore_eof": True}, prompt=[{"text": "bye"}, {"close": True}, {"hang": True}])
    agent = await world.ended(agent_id)
    assert (agent.status, agent.failure) == ("FAILED", "crash")
    assert "closed its output before it answered session/prompt" in (await world.turn()).error


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (
            {"code": -32603, "message": "Internal error", "data": {"details": "429 Too many", "retryAfter": 60}},
            "rate_limit",
        ),
        ({"code": -32603, "message": "Internal error: overloaded"}, "unavailable"),
        ({"code": -32000, "message": "Authentication required"}, "login"),
        ({"code": -32603, "message": "Oops"}, "turn"),
    ],
)
async def test_an_orchestrated_run_ends_with_the_failure_of_its_turn(world: Any, error: Any, failure: str) -> None:
    told = await outcomes(world)
    agent = await world.ended(await world.start(prompt=[{"error": error}], orchestrated=True))
    assert (agent.status, agent.failure) == ("FAILED", failure)
    assert [(each.result, each.failure) for each in told] == [("failed", failure)]
    assert (told[0].retry_at is not None) == (failure == "rate_limit")


async def test_a_run_that_ends_well_has_no_failure(world: Any) -> None:
    agent = await world.ended(await world.start(prompt=[{"text": "Done."}], orchestrated=True))
    assert (agent.status, agent.failure) == ("COMPLETED", None)


async def test_a_run_that_somebody_stopped_has_no_failure(world: Any) -> None:
    agent_id = await world.start(prompt=[{"sleep_s": 600}])
    await world.until("acp.status", lambda payload: payload["activity"] == "prompting")
    agent = await world.supervisor.stop(agent_id, reason="enough")
    assert (agent.status, agent.failure) == ("STOPPED", None)


async def test_an_agent_that_does_not_obey_a_persons_cancel_is_not_tried_again(impatient_world: Any) -> None:
    world = impatient_world
    agent_id = await world.start({"ignore_cancel": True}, prompt=[{"text": "no"}, {"hang": True}], orchestrated=True)
    await world.until("acp.log")
    await world.supervisor.cancel(agent_id)
    agent = await world.ended(agent_id)
    assert (agent.status, agent.failure) == ("FAILED", "turn")


async def test_a_model_error_told_as_the_answer_is_a_failed_turn(world: Any) -> None:
    told = await outcomes(world)
    error = "exceeded retry limit, last status: 429 Too Many Requests\n\n"
    agent = await world.ended(await world.start(prompt=[{"text": error}], orchestrated=True))
    assert (agent.status, agent.failure) == ("FAILED", "rate_limit")
    turn = await world.turn()
    assert (turn.state, turn.stop_reason) == ("failed", "end_turn")
    assert "last status: 429" in turn.error
    assert [each.result for each in told] == ["failed"]


async def test_the_same_text_after_a_tool_call_is_an_answer(world: Any) -> None:
    steps = [
        {"tool": {"toolCallId": "1", "title": "Read the log", "status": "completed"}},
        {"text": "exceeded retry limit, last status: 429 Too Many Requests"},
    ]
    agent = await world.ended(await world.start(prompt=steps, orchestrated=True))
    assert (agent.status, agent.failure) == ("COMPLETED", None)


async def test_codex_tells_beside_its_answer_that_its_turn_broke(world: Any) -> None:
    """Seen with codex-acp: threadStatus systemError, then the error as a message, then end_turn."""
    warning = "Warning: Model metadata for `fake-model` not found. Defaulting to fallback metadata.\n\n"
    broken = {"sessionUpdate": "session_info_update", "_meta": {"codex": {"threadStatus": {"type": "systemError"}}}}
    steps = [
        {"tool": {"toolCallId": "1", "title": "ls", "status": "completed"}},
        {"update": broken},
        {"text": warning},
        {"text": "The model is experiencing high demand\n\n"},
    ]
    agent = await world.ended(await world.start(prompt=steps, orchestrated=True))
    assert (agent.status, agent.failure) == ("FAILED", "unavailable")
    assert agent.error_message == "The agent failed: The model is experiencing high demand"


async def test_codex_may_recover_within_its_turn(world: Any) -> None:
    states = [
        {"update": {"sessionUpdate": "session_info_update", "_meta": {"codex": {"threadStatus": {"type": state}}}}}
        for state in ("systemError", "active")
    ]
    agent = await world.ended(await world.start(prompt=[*states, {"text": "Done."}], orchestrated=True))
    assert (agent.status, agent.failure) == ("COMPLETED", None)


async def test_an_empty_turn_is_a_failure_of_the_turn(world: Any) -> None:
    agent = await world.ended(await world.start(prompt=[], orchestrated=True))
    assert (agent.status, agent.failure) == ("FAILED", "turn")


class NoRuntime:
    """A runtime that starts nothing, and knows whether the program is there."""

    name = "none"

    def __init__(self, *, found: bool) -> None:
        self._found = found

    @asynccontextmanager
    async def spawn(self, spec: Any) -> AsyncIterator[Any]:
        raise Unavailable("It does not start")
        yield

    async def locate(self, command: str, image: str | None = None) -> Availability:
        return Availability(self._found, "not installed")


@pytest.mark.parametrize(("found", "failure"), [(True, "unavailable"), (False, "config")])
async def test_a_process_that_does_not_start_is_a_matter_of_runtime_or_program(
    world: Any, found: bool, failure: str
) -> None:
    agent = await world.ended(await world.start(runtime=NoRuntime(found=found), prompt="go"))
    assert (agent.status, agent.failure, agent.error_message) == ("FAILED", failure, "It does not start")
    assert (await world.turn()).state == "queued", "it waits for a resume"


async def test_p9_a_run_that_ends_with_its_host_says_so_and_so_does_its_turn(world: Any) -> None:
    told = await outcomes(world)
    agent_id = await world.start(prompt=[{"text": "working"}, {"sleep_s": 600}], orchestrated=True)
    await world.until("acp.log")
    await world.supervisor.shutdown()
    agent = await world.ended(agent_id)
    assert (agent.status, agent.failure, agent.error_message) == ("STOPPED", "host_died", "The host shut down")
    turn = await world.turn()
    assert (turn.state, turn.error) == ("failed", "The host shut down")
    assert [each.failure for each in told] == ["host_died"]
