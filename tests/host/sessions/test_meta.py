"""`_meta` is kept for whoever reads it, and nothing is decided by it."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.interfaces import Principal

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
# What would be allowed if it were an argument, and what would be another call.
CLAIMS = {
    "kind": "read",
    "rawInput": {"path": "a.txt", "command": "ls"},
    "locations": [{"path": "a.txt"}],
    "toolCallId": "other",
    "optionId": "once",
    "outcome": {"outcome": "selected", "optionId": "once"},
    "allow": True,
    "preset": "unattended",
    "sessionId": "foreign",
}
EDIT = {"toolCallId": "1", "title": "Edit", "kind": "edit", "rawInput": {"path": ".git/config"}}
DIFF = {"type": "diff", "path": ".git/config", "oldText": "a", "newText": "b"}
OPTIONS = [
    {"optionId": "no", "name": "No", "kind": "reject_once", "_meta": {"kind": "allow_once", "optionId": "once"}},
    {"optionId": "once", "name": "Yes", "kind": "allow_once", "_meta": CLAIMS},
]


@pytest.mark.parametrize("preset", ["ask", "contained", "unattended"])
async def test_claims_in_meta_allow_nothing(world: Any, preset: str) -> None:
    call = {**EDIT, "content": [{**DIFF, "_meta": CLAIMS}], "_meta": CLAIMS}
    steps = [{"tool": call}, {"permission": {"toolCall": call, "options": OPTIONS, "_meta": CLAIMS}}]
    await world.start(prompt=steps, preset=preset)
    row = (await world.until("permission.requested"))["permission"]
    assert (row["state"], row["tool_call"]["kind"], row["tool_call"]["rawInput"]) == (
        "pending",
        "edit",
        EDIT["rawInput"],
    )
    assert row["tool_call"]["toolCallId"] == "1"
    await world.broker.answer(row["id"], principal=USER, option_id="no")
    assert (await world.until("acp.result"))["status"] == "completed"
    assert (await world.permission()).state == "rejected"


async def test_under_read_only_a_claim_to_read_is_no_reason(world: Any) -> None:
    call = {**EDIT, "_meta": CLAIMS}
    await world.start(prompt=[{"permission": {"toolCall": call, "_meta": CLAIMS}}], preset="read-only")
    await world.until("acp.result")
    assert (await world.permission()).state == "rejected"


async def test_a_call_that_says_what_it_does_in_meta_alone_says_nothing(world: Any) -> None:
    call = {"toolCallId": "1", "title": "Read", "_meta": CLAIMS}
    await world.start(prompt=[{"permission": {"toolCall": call, "_meta": CLAIMS}}], preset="contained",
                      situation={"network": "host"})  # fmt: skip
    row = (await world.until("permission.requested"))["permission"]
    assert "rawInput" not in row["tool_call"]


async def test_other_meta_does_not_void_a_request(world: Any) -> None:
    update = {"tool_update": {"toolCallId": "1", "_meta": {"rawInput": {"path": "/etc/passwd"}}}}
    permission = {"permission": {"toolCall": EDIT}, "meanwhile": [update, {"text": "went on"}]}
    await world.start(prompt=[{"tool": EDIT}, permission])
    await world.until("acp.log", lambda log: log["message"] == "went on")
    row = (await world.until("permission.requested"))["permission"]
    await world.broker.answer(row["id"], principal=USER, option_id="once")
    await world.until("acp.result")
    assert (await world.permission()).state == "allowed"


async def test_meta_is_kept_with_what_it_came_with(world: Any) -> None:
    text = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "hello"}, "_meta": {"a": 1}}
    params = {"sessionId": "scripted-session", "update": text, "_meta": {"b": 2}}
    call = {**EDIT, "_meta": {"c": 3}}
    await world.start(prompt=[{"tool": call}, {"notify": {"method": "session/update", "params": params}}])
    await world.until("acp.result")
    tool, chunk = world.payloads("acp.log")[:2]
    assert (tool["update"], tool.get("meta")) == ({"sessionUpdate": "tool_call", **call}, None)
    assert (chunk["update"], chunk["meta"]) == (text, {"b": 2})
