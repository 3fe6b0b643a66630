"""Permission: nothing by silence, the kind decides and never the place, the first answer wins."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.errors import Conflict, NotFound, ValidationFailed
from kandev_host.interfaces import Decision, Principal
from kandev_host.models import PermissionRequest
from kandev_host.sessions.presets import is_protected
from kandev_host.settings import PermissionSettings

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
CALL = {"toolCall": {"toolCallId": "1", "title": "Edit", "kind": "edit", "rawInput": {"path": "a.txt"}}}


async def asked(world: Any, step: dict[str, Any] | None = None, **how: Any) -> dict[str, Any]:
    await world.start(prompt=[step or {"permission": CALL}], **how)
    return (await world.until("permission.requested"))["permission"]


async def outcome(world: Any) -> str:
    await world.until("acp.result")
    return world.texts()[0]


async def test_by_default_a_person_is_asked_and_the_answer_reaches_the_agent(world: Any) -> None:
    permission = await asked(world)
    resolved = await world.broker.answer(permission["id"], principal=USER, option_id="once")
    assert (resolved.state, resolved.decided_by) == ("allowed", "user-1")
    assert await outcome(world) == "permission: once"
    assert (await world.permission()).state == "allowed"


async def test_a_person_may_choose_any_option_offered(world: Any) -> None:
    permission = await asked(world)
    await world.broker.answer(permission["id"], principal=USER, option_id="always")
    assert await outcome(world) == "permission: always"


async def test_a_rejection_is_recorded_as_one(world: Any) -> None:
    permission = await asked(world)
    await world.broker.answer(permission["id"], principal=USER, option_id="reject")
    assert await outcome(world) == "permission: reject"
    assert (await world.permission()).state == "rejected"


async def test_while_it_waits_the_activity_says_so_and_updates_flow(world: Any) -> None:
    permission = await asked(world)
    await world.until("acp.status", lambda payload: payload["activity"] == "waiting_permission")
    await world.broker.answer(permission["id"], principal=USER, outcome="cancelled")
    await world.until("acp.result")
    activities = [payload["activity"] for payload in world.payloads("acp.status")]
    assert activities == ["starting", "idle", "prompting", "waiting_permission", "prompting", "idle"]


async def test_a_second_answer_is_a_conflict(world: Any) -> None:
    permission = await asked(world)
    results: list[str] = []

    async def answer(option_id: str) -> None:
        try:
            await world.broker.answer(permission["id"], principal=USER, option_id=option_id)
            results.append(option_id)
        except Conflict:
            results.append("conflict")

    async with anyio.create_task_group() as tasks:
        for option_id in ("once", "reject", "always"):
            tasks.start_soon(answer, option_id)
    assert sorted(results) == ["conflict", "conflict", "once"]
    with pytest.raises(Conflict, match="already allowed"):
        await world.broker.answer(permission["id"], principal=USER, option_id="reject")


async def test_an_option_that_was_not_offered_is_refused(world: Any) -> None:
    permission = await asked(world)
    with pytest.raises(ValidationFailed):
        await world.broker.answer(permission["id"], principal=USER, option_id="allow")
    assert (await world.permission()).state == "pending"


async def test_an_unknown_request_is_not_found(world: Any) -> None:
    with pytest.raises(NotFound):
        await world.broker.answer("nope", principal=USER, option_id="once")


async def test_cancel_answers_every_pending_request_cancelled(world: Any) -> None:
    await asked(world)
    agent_id = world.supervisor.runs[0].agent.id
    await world.supervisor.cancel(agent_id)
    assert (await world.until("acp.result"))["stop_reason"] == "cancelled"
    assert (await world.permission()).state == "cancelled"


async def test_stop_leaves_no_request_pending(world: Any) -> None:
    permission = await asked(world)
    await world.supervisor.stop(permission["agent_id"])
    assert await world.store.count(PermissionRequest, [("state", "=", "pending")]) == 0


async def test_a_dying_agent_leaves_no_request_pending(world: Any) -> None:
    await asked(world)
    await world.supervisor.shutdown()
    assert (await world.permission()).state == "cancelled"


async def test_a_request_that_the_agent_withdraws_is_cancelled(world: Any) -> None:
    await world.start(prompt=[{"permission": CALL, "withdraw": True}])
    assert await outcome(world) == "error -32800"
    row = await world.permission()
    assert (row.state, row.reason) == ("cancelled", "the agent withdrew it")


async def test_yes_chooses_allow_once_by_kind_wherever_it_stands(world: Any) -> None:
    await world.start(prompt=[{"permission": CALL}], preset="unattended")
    assert await outcome(world) == "permission: once"
    row = await world.permission()
    assert (row.state, row.decided_by, row.reason) == ("allowed", "policy", "preset unattended")
    assert world.payloads("permission.requested") == []


@pytest.mark.parametrize(
    "options",
    [
        [{"optionId": "a", "name": "Allow once", "kind": "allow_always"}],
        [{"optionId": "allow_once", "name": "Allow once", "kind": "something_new"}],
        [{"optionId": "a", "name": "A", "kind": "allow_once"}, {"optionId": "b", "name": "B", "kind": "allow_once"}],
    ],
)
async def test_without_one_clear_allow_once_a_person_is_asked_whatever_the_preset(world: Any, options: Any) -> None:
    await asked(world, {"permission": {**CALL, "options": options}}, preset="unattended")
    assert (await world.permission()).state == "pending"


async def test_contained_asks_for_what_configures_git_and_agents(world: Any) -> None:
    call = {"toolCallId": "1", "kind": "edit", "locations": [{"path": "/workspace/.git/hooks/post-commit"}]}
    await asked(world, {"permission": {"toolCall": call}}, preset="contained")


async def test_read_only_rejects_what_writes(world: Any) -> None:
    await world.start(prompt=[{"permission": CALL}], preset="read-only")
    assert await outcome(world) == "permission: reject"


@pytest.mark.parametrize(
    ("path", "protected"),
    [
        ("/workspace/src/a.py", False),
        ("a.py", False),
        ("/workspace/../etc/passwd", True),
        ("/etc/passwd", True),
        (".git/config", True),
        ("/workspace/sub/.mcp.json", True),
        ("/workspacex/a", True),
    ],
)
def test_protected_paths(path: str, protected: bool) -> None:
    assert is_protected(path) is protected


async def test_a_policy_can_lower_a_preset_to_deny(open_world: Any) -> None:
    world = await open_world(policies=[lambda _request, _task: Decision("deny", "not on Fridays")])
    await world.start(prompt=[{"permission": CALL}], preset="unattended")
    assert await outcome(world) == "permission: reject"
    assert (await world.permission()).reason == "not on Fridays"


async def test_a_policy_cannot_raise_ask_to_allow(open_world: Any) -> None:
    world = await open_world(policies=[lambda _request, _task: Decision("allow", "sure")])
    await asked(world)
    assert (await world.permission()).state == "pending"


async def test_a_policy_that_breaks_asks(open_world: Any) -> None:
    world = await open_world(policies=[lambda _request, _task: 1 / 0])
    await asked(world, preset="unattended")
    assert (await world.permission()).state == "pending"


async def test_silence_is_a_rejection_after_the_time_set(open_world: Any) -> None:
    world = await open_world(permissions=PermissionSettings(wait_timeout_s=0.1))
    await asked(world)
    assert await outcome(world) == "permission: reject"
    assert (await world.permission()).reason == "nobody answered in time"


async def test_changed_input_voids_a_request_that_waits(world: Any) -> None:
    permission = await asked(world)
    await world.broker.input_changed(permission["agent_id"], "1", {"path": "a.txt"})
    assert (await world.permission()).state == "pending"
    await world.broker.input_changed(permission["agent_id"], "1", {"path": "/etc/passwd"})
    assert await outcome(world) == "permission: cancelled"
    assert (await world.permission()).reason == "the input changed while it waited"


async def test_a_request_with_only_an_id_shows_what_is_known_of_the_call(world: Any) -> None:
    tool = {"toolCallId": "1", "title": "Run make", "kind": "execute", "rawInput": {"command": "make"}}
    await world.start(prompt=[{"tool": tool}, {"permission": {"toolCall": {"toolCallId": "1"}}}])
    shown = (await world.until("permission.requested"))["permission"]["tool_call"]
    assert shown == tool | {"toolCallId": "1"}


@pytest.mark.parametrize(
    "params",
    [
        {"toolCall": {}},
        {"toolCall": {"toolCallId": "1"}, "options": [{"name": "no id"}]},
        {"toolCall": {"toolCallId": "1"}, "options": [{"optionId": "a"}, {"optionId": "a"}]},
    ],
)
async def test_a_request_that_cannot_be_answered_soundly_is_invalid(world: Any, params: Any) -> None:
    await world.start(prompt=[{"permission": params}])
    assert await outcome(world) == "error -32602"


@pytest.mark.parametrize("method", ["fs/read_text_file", "fs/write_text_file", "terminal/create", "craft/drain"])
async def test_what_was_not_offered_is_not_found(world: Any, method: str) -> None:
    await world.start(prompt=[{"request": {"method": method}}])
    assert '"code": -32601' in await outcome(world)
