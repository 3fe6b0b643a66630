"""Every decision about a permission is in the journal with who made it and why."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.interfaces import Principal
from kandev_host.settings import PermissionSettings, RuleSettings

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
EDIT = {"toolCallId": "1", "title": "Edit", "kind": "edit", "rawInput": {"path": "/workspace/a.txt"}}
ASK = {"permission": {"toolCall": EDIT}}


async def decided(world: Any) -> tuple[str, str | None, str | None]:
    """As it was told."""
    told = (await world.until("permission.resolved"))["permission"]
    row = await world.permission()
    assert (row.state, row.decided_by, row.reason) == (told["state"], told["decided_by"], told["reason"])
    return told["state"], told["decided_by"], told["reason"]


async def asked(world: Any, **how: Any) -> tuple[str, str]:
    agent_id = await world.start(prompt=[how.pop("step", ASK)], **how)
    return agent_id, (await world.until("permission.requested"))["permission"]["id"]


@pytest.mark.parametrize(
    ("option_id", "state", "reason"),
    [("once", "allowed", "A user chose Allow once"), ("reject", "rejected", "A user chose Reject")],
)
async def test_what_a_person_chose(world: Any, option_id: str, state: str, reason: str) -> None:
    _, permission_id = await asked(world)
    await world.broker.answer(permission_id, principal=USER, option_id=option_id)
    assert await decided(world) == (state, "user-1", reason)


@pytest.mark.parametrize(
    ("preset", "state", "word"),
    [("contained", "allowed", "contained"), ("unattended", "allowed", "unattended"), ("read-only", "rejected", "read")],
)
async def test_what_a_preset_decides(world: Any, preset: str, state: str, word: str) -> None:
    await world.start(prompt=[ASK], preset=preset)
    found, by, reason = await decided(world)
    assert (found, by) == (state, "policy")
    assert word in (reason or "")


async def test_what_a_rule_decides(open_world: Any) -> None:
    rule = RuleSettings(effect="deny", kind="edit", reason="nothing is to change this week")
    world = await open_world(rules={"freeze": rule})
    await world.start(prompt=[ASK], preset="unattended")
    state, by, reason = await decided(world)
    assert (state, by) == ("rejected", "policy")
    assert "nothing is to change this week" in (reason or "")


async def test_why_a_person_is_asked_is_told_with_the_question(world: Any) -> None:
    protected = {"permission": {"toolCall": {**EDIT, "rawInput": {"path": "/workspace/.git/config"}}}}
    await world.start(prompt=[protected], preset="unattended")
    reason = (await world.until("permission.requested"))["permission"]["reason"]
    assert ".git" in reason or "protected" in reason


async def test_that_nobody_answered_in_time(open_world: Any) -> None:
    world = await open_world(permissions=PermissionSettings(wait_timeout_s=0.2))
    await asked(world)
    state, by, reason = await decided(world)
    assert (state, by, reason) == ("rejected", "policy", "nobody answered in time")


async def test_that_its_turn_was_cancelled(world: Any) -> None:
    agent_id, _ = await asked(world)
    await world.supervisor.cancel(agent_id)
    state, by, reason = await decided(world)
    assert (state, by) == ("cancelled", "host")
    assert reason


async def test_that_its_agent_ended(world: Any) -> None:
    await asked(world, step={**ASK, "meanwhile": [{"exit": 1}]})
    state, by, reason = await decided(world)
    assert (state, by) == ("cancelled", "host")
    assert reason


async def test_that_its_agent_withdrew_it(world: Any) -> None:
    await asked(world, step={**ASK, "withdraw": True})
    state, by, reason = await decided(world)
    assert (state, by) == ("cancelled", "host")
    assert reason
