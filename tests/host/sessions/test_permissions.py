"""Permission: nothing by silence, the kind decides and never the place, the first answer wins."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from kandev_host.errors import Conflict, Forbidden, NotFound, ValidationFailed
from kandev_host.interfaces import Decision, Principal
from kandev_host.models import PermissionRequest
from kandev_host.protocol import acp
from kandev_host.sessions.presets import is_protected
from kandev_host.sessions.updates import ToolState
from kandev_host.settings import PermissionSettings

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
CALL = {"toolCall": {"toolCallId": "1", "title": "Edit", "kind": "edit", "rawInput": {"path": "a.txt"}}}


async def asked(world: Any, step: Any = None, **how: Any) -> dict[str, Any]:
    await world.start(prompt=step if isinstance(step, list) else [step or {"permission": CALL}], **how)
    return (await world.until("permission.requested"))["permission"]


async def outcome(world: Any) -> str:
    await world.until("acp.result")
    return world.texts()[0]


async def test_by_default_a_person_is_asked_and_the_answer_reaches_the_agent(world: Any) -> None:
    permission = await asked(world)
    resolved, rule = await world.broker.answer(permission["id"], principal=USER, option_id="once")
    assert (resolved.state, resolved.decided_by, rule) == ("allowed", "user-1", None)
    assert resolved.reason == "A user chose Allow once"
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


@pytest.mark.parametrize("change", ["the call", "the agent"])
async def test_what_changes_while_a_policy_thinks_is_not_allowed_by_it(open_world: Any, change: str) -> None:
    seen: list[Any] = []
    asked_it, may_answer = anyio.Event(), anyio.Event()

    async def slow(request: Any, _task: Any) -> None:
        seen.append(request)
        asked_it.set()
        await may_answer.wait()

    world = await open_world(policies=[slow])
    await world.start(prompt=[{"permission": CALL}], preset="unattended")
    with anyio.fail_after(30):
        await asked_it.wait()
    agent_id = seen[0].agent_id
    if change == "the call":
        await world.broker.call_changed(agent_id, "1", {"rawInput": {"path": "/etc/passwd"}})
    else:
        await world.broker.cancel_all(agent_id, "it was stopped")
    may_answer.set()
    assert await outcome(world) == "permission: cancelled"
    reasons = {"the call": "what it does changed while it waited", "the agent": "it was stopped"}
    assert (await world.permission()).reason == reasons[change]


async def test_silence_is_a_rejection_after_the_time_set(open_world: Any) -> None:
    world = await open_world(permissions=PermissionSettings(wait_timeout_s=0.1))
    await asked(world)
    assert await outcome(world) == "permission: reject"
    assert (await world.permission()).reason == "nobody answered in time"


async def test_changed_input_voids_a_request_that_waits(world: Any) -> None:
    permission = await asked(world)
    await world.broker.call_changed(permission["agent_id"], "1", {"rawInput": {"path": "a.txt"}})
    assert (await world.permission()).state == "pending"
    await world.broker.call_changed(permission["agent_id"], "1", {"rawInput": {"path": "/etc/passwd"}})
    assert await outcome(world) == "permission: cancelled"
    assert (await world.permission()).reason == "what it does changed while it waited"


DIFF = {"type": "diff", "path": "a.txt", "oldText": "a", "newText": "b"}


@pytest.mark.parametrize(
    "update",
    [
        {"content": [{**DIFF, "newText": "c"}]},
        {"content": []},
        {"locations": [{"path": "b.txt"}]},
        {"rawInput": {"file": "b.txt"}},
    ],
)
async def test_a_changed_diff_voids_the_request(world: Any, tmp_path: Path, update: Any) -> None:
    call = {"toolCallId": "1", "content": [DIFF], "locations": [{"path": "a.txt"}], "rawInput": {"file": "a.txt"}}
    shown = tmp_path / "shown"
    meanwhile = [{"until_file": str(shown)}, {"tool_update": {"toolCallId": "1", **update}}]
    await asked(world, {"permission": {"toolCall": call}, "meanwhile": meanwhile})
    shown.touch()
    assert await outcome(world) == "permission: cancelled"
    assert (await world.permission()).reason == "what it does changed while it waited"


@pytest.mark.parametrize(
    "update",
    [
        {"status": "in_progress"},
        {"title": "Another", "content": [DIFF, {"type": "content", "content": {"type": "text", "text": "so far"}}]},
        {"rawInput": {"file": "a.txt"}, "locations": [{"path": "a.txt"}]},
    ],
)
async def test_what_changes_nothing_of_what_was_shown_leaves_the_request(world: Any, update: Any) -> None:
    call = {"toolCallId": "1", "content": [DIFF], "locations": [{"path": "a.txt"}], "rawInput": {"file": "a.txt"}}
    meanwhile = [{"tool_update": {"toolCallId": "1", **update}}, {"text": "went on"}]
    permission = await asked(world, {"permission": {"toolCall": call}, "meanwhile": meanwhile})
    await world.until("acp.log", lambda log: log["message"] == "went on")
    await world.broker.answer(permission["id"], principal=USER, option_id="once")
    await world.until("acp.result")
    assert (await world.permission()).state == "allowed"


async def test_an_update_right_behind_a_request_is_shown_or_voids_it(world: Any) -> None:
    old, new = ({"toolCallId": "1", "rawInput": {"command": command}} for command in ("ls", "rm -r ."))
    steps = [{"tool": old}, {"permission": {"toolCall": old}, "meanwhile": [{"tool_update": new}, {"text": "went on"}]}]
    await world.start(prompt=steps)
    await world.until("acp.log", lambda log: log["message"] == "went on")
    await world.until("permission.requested")
    row = await world.permission()
    assert row.state == "cancelled" or row.tool_call["rawInput"] == new["rawInput"]


async def test_what_was_known_of_a_call_is_what_is_decided_on(world: Any) -> None:
    hidden = {"toolCallId": "1", "kind": "edit", "content": [{**DIFF, "path": ".git/config"}]}
    permission = await asked(
        world, [{"tool": hidden}, {"permission": {"toolCall": {"toolCallId": "1"}}}], preset="unattended"
    )
    assert permission["tool_call"]["content"][0]["path"] == ".git/config"


async def test_a_call_too_large_to_be_kept_is_asked_for(world: Any) -> None:
    small, large = ({"toolCallId": "1", "kind": "edit", "rawInput": {"text": "x" * size}} for size in (1, 40_000))
    steps = [{"tool": small}, {"tool_update": large}, {"permission": {"toolCall": {"toolCallId": "1"}}}]
    permission = await asked(world, steps, preset="unattended")
    assert "rawInput" not in permission["tool_call"]
    assert permission["tool_call"]["truncatedByHost"] is True


async def test_a_protected_path_behind_many_others_is_asked_for(world: Any) -> None:
    paths = [*(f"src/{number}" for number in range(150)), ".git/hooks/post-commit"]
    call = {"toolCallId": "1", "kind": "edit", "locations": [{"path": path} for path in paths]}
    await asked(world, [{"tool": call}, {"permission": {"toolCall": {"toolCallId": "1"}}}], preset="unattended")


@pytest.mark.parametrize("status", ["completed", "in_progress"])
async def test_a_protected_path_is_asked_for_after_however_many_calls(world: Any, status: str) -> None:
    many = [{"tool": {"toolCallId": f"{number}", "status": status}} for number in range(1000)]
    hidden = {"toolCallId": "last", "kind": "edit", "content": [{**DIFF, "path": ".git/config"}]}
    steps = [*many, {"tool": hidden}, {"permission": {"toolCall": {"toolCallId": "last"}}}]
    await asked(world, steps, preset="unattended")


async def test_what_is_kept_of_a_call_is_bounded() -> None:
    """A call is upserted as long as its turn lasts: each of a thousand may hold what came on a line of 8 MiB."""
    large = "x" * 1_000_000
    known = ToolState()
    known.merge(
        acp.ToolCall(tool_call_id="1", title=large, kind=large, status=large, locations=[{"path": large}] * 100)
    )
    assert len(msgspec.json.encode(known)) < 100_000
    assert known.asked({"toolCallId": "1"}, known)["truncatedByHost"] is True


async def test_an_answer_for_another_digest_is_refused(world: Any) -> None:
    permission = await asked(world)
    with pytest.raises(Conflict) as refused:
        await world.broker.answer(permission["id"], principal=USER, option_id="once", digest="0" * 64)
    assert refused.value.details["state"] == "changed"
    await world.broker.answer(permission["id"], principal=USER, option_id="once", digest=permission["digest"])
    assert await outcome(world) == "permission: once"


@pytest.mark.parametrize("kind", ["agent", "service", "host"])
async def test_an_agents_principal_cannot_answer(world: Any, kind: Any) -> None:
    permission = await asked(world)
    principal = Principal("x", kind, "x", frozenset({"*"}))
    with pytest.raises(Forbidden):
        await world.broker.answer(permission["id"], principal=principal, option_id="once")
    assert (await world.permission()).state == "pending"


async def test_the_seeds_spoofed_indexing_permission_is_asked(world: Any) -> None:
    call = {"toolCallId": "workspace-indexing-permission", "title": "workspace-indexing-permission", "kind": "read"}
    options = [{"optionId": "enable", "name": "Enable", "kind": "allow_always"}]
    permission = await asked(world, {"permission": {"toolCall": call, "options": options}})
    assert permission["state"] == "pending"


async def test_unattended_ends_after_its_time(world: Any) -> None:
    """P17: measured on the monotonic clock, which no jump of the wall clock moves."""
    over = {"expires_at": time.monotonic()}
    permission = await asked(world, preset="unattended", situation=over)
    assert permission["state"] == "pending"


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
        {"toolCall": {"toolCallId": "1"}, "sessionId": "another"},
    ],
)
async def test_a_request_that_cannot_be_answered_soundly_is_invalid(world: Any, params: Any) -> None:
    await world.start(prompt=[{"permission": params}])
    assert await outcome(world) == "error -32602"


@pytest.mark.parametrize("method", ["fs/read_text_file", "fs/write_text_file", "terminal/create", "craft/drain"])
async def test_what_was_not_offered_is_not_found(world: Any, method: str) -> None:
    await world.start(prompt=[{"request": {"method": method}}])
    assert '"code": -32601' in await outcome(world)
