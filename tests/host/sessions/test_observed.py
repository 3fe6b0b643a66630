"""What released agents were seen to do with a cancel and a rejection, and what it comes to."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.interfaces import Principal

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
CALL = {"toolCallId": "1", "title": "Run", "kind": "execute"}
FAILED = {"error": {"code": -32603, "message": "Internal error"}}


async def asked(world: Any, chosen: dict[str, Any], **script: Any) -> tuple[str, str]:
    """Of an agent that asks, and then does this: its id and that of its request."""
    prompt = [{"tool": CALL}, {"permission": {"toolCall": CALL}, "chosen": chosen}]
    agent_id = await world.start(script, prompt=prompt)
    return agent_id, (await world.until("permission.requested"))["permission"]["id"]


@pytest.mark.parametrize("end", [[{"stop": "end_turn"}], [FAILED]], ids=["openhands", "hermes"])
async def test_a_cancel_that_is_obeyed_in_other_words_is_a_cancel(world: Any, end: Any) -> None:
    agent_id, _ = await asked(world, {"cancelled": end}, ignore_cancel=True)
    await world.supervisor.cancel(agent_id)
    assert (await world.until("acp.result"))["status"] == "cancelled"
    assert world.supervisor.live(agent_id).agent.status == "RUNNING"


async def test_an_agent_that_cancels_itself_when_it_is_rejected_has_cancelled_its_turn(world: Any) -> None:
    """Both codex adapters do."""
    _, permission_id = await asked(world, {"reject": [{"stop": "cancelled"}]})
    await world.broker.answer(permission_id, principal=USER, option_id="reject")
    assert (await world.until("acp.result"))["status"] == "cancelled"
    assert (await world.turn()).state == "cancelled"


async def test_a_rejected_call_that_its_agent_calls_completed_stays_rejected(world: Any) -> None:
    """As dcode has it: what the agent says is told, and the record of the decision is the host's."""
    done = {"tool_update": {"toolCallId": "1", "status": "completed"}}
    _, permission_id = await asked(world, {"reject": [done]})
    await world.broker.answer(permission_id, principal=USER, option_id="reject")
    await world.until("acp.result")
    told = [log["metadata"].get("status") for log in world.payloads("acp.log") if log["metadata"].get("tool_call_id")]
    assert (told[-1], (await world.permission()).state) == ("completed", "rejected")
