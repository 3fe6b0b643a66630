"""An agent that says nothing: shown first, then dealt with by policy (P7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kandev_host.models import AgentInstance
from kandev_host.settings import OrchestratorSettings, SessionSettings

pytestmark = pytest.mark.anyio

SILENT = [{"text": "working"}, {"sleep_s": 600}]


def stalls(action: Any = "none", timeout_s: float = 0.2) -> OrchestratorSettings:
    return OrchestratorSettings(stall_timeout_s=timeout_s, stall_action=action)


def stalled(payload: dict[str, Any]) -> bool:
    return payload["stalled_at"] is not None


def stalled_agent(payload: dict[str, Any]) -> bool:
    return payload["agent"]["stalled_at"] is not None


async def test_a_silent_agent_is_shown_as_stalled(open_world: Any) -> None:
    world = await open_world(stalls=stalls())
    agent_id = await world.start(prompt=SILENT)
    status = await world.until("acp.status", stalled)
    assert (status["activity"], status["status"]) == ("prompting", "RUNNING")
    await world.until("agent.updated", stalled_agent)
    row = await world.store.get(AgentInstance, agent_id)
    assert row.stalled_at is not None


async def test_an_agent_that_talks_again_is_not_stalled_any_more(open_world: Any, tmp_path: Path) -> None:
    world = await open_world(stalls=stalls())
    back = tmp_path / "back"
    agent_id = await world.start(
        prompt=[{"until_file": str(back)}, {"text": "back"}, {"permission": {"toolCall": {"toolCallId": "1"}}}]
    )
    await world.until("acp.status", stalled)
    back.touch()
    await world.until("permission.requested")
    await world.until(
        "acp.status", lambda payload: payload["activity"] == "waiting_permission" and not stalled(payload)
    )
    assert (await world.store.get(AgentInstance, agent_id)).stalled_at is None


async def test_a_turn_that_ends_leaves_no_stall_behind(open_world: Any, tmp_path: Path) -> None:
    world = await open_world(stalls=stalls())
    done = tmp_path / "done"
    agent_id = await world.start(prompt=[{"until_file": str(done)}, {"text": "done"}])
    await world.until("acp.status", stalled)
    done.touch()
    await world.until("acp.result")
    await world.until("acp.status", lambda payload: payload["activity"] == "idle" and payload["turn_id"] is not None)
    assert (await world.store.get(AgentInstance, agent_id)).stalled_at is None


async def test_waiting_for_a_person_is_no_stall(open_world: Any) -> None:
    world = await open_world(stalls=stalls("restart", timeout_s=2.0))  # in which it is to have asked
    await world.start(prompt=[{"permission": {"toolCall": {"toolCallId": "1"}}}, {"text": "done"}])
    permission = await world.until("permission.requested")
    assert (await world.ended(await world.start(prompt=SILENT))).failure == "stalled"  # so long it has waited
    await world.broker.answer(permission["permission"]["id"], principal=world.me, option_id="once")
    assert (await world.until("acp.result"))["status"] == "completed"
    mine = permission["agent_id"]
    assert not any(stalled(each) for each in world.payloads("acp.status") if each["agent_id"] == mine)


async def test_an_idle_agent_may_be_silent(open_world: Any) -> None:
    world = await open_world(stalls=stalls("restart"))
    agent_id = await world.start()
    await world.until_idle()
    assert (await world.ended(await world.start(prompt=SILENT))).failure == "stalled"
    assert world.supervisor.live(agent_id).agent.stalled_at is None


async def test_by_policy_a_stalled_turn_is_cancelled_and_the_agent_kept(open_world: Any) -> None:
    world = await open_world(stalls=stalls("cancel"))
    ended: list[Any] = []

    async def on_turn_end(_agent: Any, _turn: Any, outcome: Any) -> None:
        ended.append(outcome)

    world.supervisor.on_turn_end = on_turn_end
    agent_id = await world.start(prompt=SILENT)
    await world.until("acp.status", stalled)
    assert (await world.until("acp.result"))["status"] == "cancelled"
    await world.until("acp.status", lambda payload: payload["activity"] == "idle" and payload["turn_id"] is not None)
    assert world.supervisor.live(agent_id).agent.status == "RUNNING"
    turn = await world.turn()
    assert (turn.state, turn.error) == ("cancelled", "The agent said nothing for 0.4 s, so its turn was cancelled")
    assert [(each.failure, each.asked_to_cancel) for each in ended] == [("stalled", False)]


async def test_by_policy_a_stalled_run_ends_so_that_it_can_be_tried_again(open_world: Any) -> None:
    world = await open_world(stalls=stalls("restart"))
    agent = await world.ended(await world.start(prompt=SILENT))
    assert (agent.status, agent.failure) == ("FAILED", "stalled")
    assert agent.error_message == "The agent said nothing for 0.4 s"
    turn = await world.turn()
    assert (turn.state, turn.error) == ("failed", "The agent said nothing for 0.4 s")


async def test_an_agent_that_ignores_the_cancel_too_has_stalled(open_world: Any) -> None:
    impatient = SessionSettings(cancel_grace_s=0.4, kill_grace_s=0.4)
    world = await open_world(impatient, stalls=stalls("cancel"))
    agent = await world.ended(await world.start({"ignore_cancel": True}, prompt=[{"hang": True}]))
    assert (agent.status, agent.failure) == ("FAILED", "stalled")


async def test_an_agent_that_reads_no_more_is_stalled_too(open_world: Any) -> None:
    """The prompt is larger than the pipe, and nobody empties it."""
    world = await open_world(stalls=stalls("restart"))
    agent_id = await world.start({"after_new": [{"deaf": True}]})
    await world.until_idle()
    await world.prompt(agent_id, "x" * (4 << 20))
    assert (await world.ended(agent_id)).failure == "stalled"
