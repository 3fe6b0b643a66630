"""What an agent asked before its host died: it waits on, and its answer reaches the run that goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kandev_host.errors import Conflict
from kandev_host.interfaces import Decision, Principal, Put, Remove
from kandev_host.models import AgentInstance, PermissionRequest, PermissionRule, Session, Turn, now
from kandev_host.sessions.asking import digest
from kandev_host.sessions.stage import Resume
from kandev_host.settings import PermissionSettings
from kandev_host.testing.scripted_agent import OPTIONS

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
RUN = {"title": "Run make", "kind": "execute", "rawInput": {"command": "make"}}
AGAIN = {"permission": {"toolCall": {"toolCallId": "2", **RUN}}}
SCRIPT = {"initialize": {"agentCapabilities": {"sessionCapabilities": {"resume": {}}}}, "resume": {}}


async def left(world: Any, *, resumed_from: str | None = None, ago_s: float = 0, **agent: Any) -> PermissionRequest:
    """A question of a run whose host died."""
    failed = {"status": "FAILED", "failure": "host_died", "stopped_at": now()}
    row = AgentInstance(
        task_id=world.task.id, agent_type="scripted", runtime="plain", resumed_from=resumed_from, **failed | agent
    )
    ids = {"agent_id": row.id, "task_id": world.task.id}
    session = Session(**ids, acp_session_id="scripted-session", cwd="/workspace", protocol_version=1)
    call = {"toolCallId": "1", **RUN}
    asked = PermissionRequest(
        **ids,
        session_id=session.id,
        tool_call=call,
        options=OPTIONS,
        digest=digest("scripted-session", call, OPTIONS),
        created_at=now() - timedelta(seconds=ago_s),
    )
    fields = {name: getattr(row, name) for name in row.__struct_fields__} | {"session_id": session.id}
    await world.journal.record(Put(AgentInstance(**fields)), Put(session), Put(asked))
    return asked


async def resume(world: Any, asked: PermissionRequest, *steps: Any, **how: Any) -> str:
    session = await world.store.get(Session, asked.session_id)
    how = {"prompt": list(steps) or [AGAIN], **how}
    return await world.start(SCRIPT, resume=Resume(session=session, transcript=""), **how)


async def answer(world: Any, id: str, option_id: str = "once", **how: Any) -> PermissionRequest:
    return (await world.broker.answer(id, principal=USER, option_id=option_id, **how))[0]


async def said(world: Any) -> list[str]:
    await world.until("acp.result")
    return world.texts()


async def row_of(world: Any, asked: PermissionRequest) -> PermissionRequest:
    row = await world.store.get(PermissionRequest, asked.id)
    assert row is not None
    return row


async def test_an_answer_given_meanwhile_reaches_the_agent_without_asking_again(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id)
    agent_id = await resume(world, asked)
    assert await said(world) == ["permission: once"]
    row = await row_of(world, asked)
    assert (row.state, row.agent_id, row.tool_call["toolCallId"]) == ("allowed", agent_id, "2")
    assert (row.decided_by, world.payloads("permission.requested")) == ("user-1", [])
    assert len(await world.rows(PermissionRequest)) == 1


async def test_a_rejection_given_meanwhile_counts_too(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id, "reject")
    await resume(world, asked, preset="unattended")
    assert await said(world) == ["permission: reject"]


async def test_what_still_waits_is_taken_up_under_its_id(world: Any) -> None:
    asked = await left(world)
    agent_id = await resume(world, asked)
    told = (await world.until("permission.requested"))["permission"]
    assert (told["id"], told["agent_id"], told["digest"]) == (asked.id, agent_id, asked.digest)
    await answer(world, asked.id, digest=asked.digest)
    assert await said(world) == ["permission: once"]


async def test_an_answer_is_used_once(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id)
    await resume(world, asked, AGAIN, AGAIN)
    second = (await world.until("permission.requested"))["permission"]
    assert second["id"] != asked.id
    await answer(world, second["id"], "reject")
    assert await said(world) == ["permission: once", "permission: reject"]


@pytest.mark.parametrize(
    "other",
    [
        {"rawInput": {"command": "make install"}},
        {"title": "Run something else"},
        {"kind": "other"},
        {"locations": [{"path": "/workspace/x"}]},
        {"content": [{"type": "diff", "path": "x", "newText": "y"}]},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_another_question_is_asked_anew(world: Any, other: dict[str, Any]) -> None:
    asked = await left(world)
    await answer(world, asked.id)
    await resume(world, asked, {"permission": {"toolCall": {"toolCallId": "1", **RUN, **other}}})
    new = (await world.until("permission.requested"))["permission"]
    assert new["id"] != asked.id


async def test_other_options_are_another_question(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id)
    renamed = [{**option, "name": "Yes"} for option in OPTIONS]
    await resume(world, asked, {"permission": {"toolCall": {"toolCallId": "1", **RUN}, "options": renamed}})
    assert (await world.until("permission.requested"))["permission"]["id"] != asked.id


async def test_what_is_not_asked_again_in_the_first_turn_is_cancelled(world: Any) -> None:
    asked = await left(world)
    await resume(world, asked, {"text": "nothing"})
    await world.until("acp.result")
    row = await row_of(world, asked)
    assert (row.state, row.decided_by, row.reason) == ("cancelled", "host", "the agent did not ask again")
    with pytest.raises(Conflict, match="already cancelled"):
        await answer(world, asked.id)


async def test_an_answer_that_was_not_asked_for_in_the_first_turn_is_never_used(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id)
    agent_id = await resume(world, asked, {"text": "nothing"})
    await world.until("acp.result")
    await world.prompt(agent_id, [AGAIN])
    assert (await world.until("permission.requested"))["permission"]["id"] != asked.id


async def test_a_run_that_begins_anew_takes_up_nothing(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id)
    await world.start(prompt=[AGAIN])
    assert (await world.until("permission.requested"))["permission"]["id"] != asked.id


async def test_a_run_that_died_before_its_first_turn_passes_on_what_it_went_on_with(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id)
    between = await left(world, resumed_from=asked.agent_id)
    await world.journal.record(Remove(PermissionRequest, between.id))
    await resume(world, between)
    assert await said(world) == ["permission: once"]
    assert (await row_of(world, asked)).turn_id is not None


async def test_a_denial_of_today_beats_an_answer_of_yesterday(open_world: Any) -> None:
    world = await open_world(policies=[lambda _request, _task: Decision("deny", "not on Fridays")])
    asked = await left(world)
    await answer(world, asked.id)
    await resume(world, asked)
    assert await said(world) == ["permission: reject"]


async def test_the_time_to_wait_goes_on(open_world: Any) -> None:
    world = await open_world(permissions=PermissionSettings(wait_timeout_s=3600))
    asked = await left(world, ago_s=3600)
    await resume(world, asked)
    assert await said(world) == ["permission: reject"]
    assert (await row_of(world, asked)).reason == "nobody answered in time"


async def test_an_answer_that_comes_too_late_is_a_conflict(open_world: Any) -> None:
    world = await open_world(permissions=PermissionSettings(wait_timeout_s=3600))
    asked = await left(world, ago_s=3601)
    with pytest.raises(Conflict, match="in time"):
        await answer(world, asked.id)
    assert (await row_of(world, asked)).state == "cancelled"


async def test_what_is_left_can_be_remembered(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id, remember="task")
    (rule,) = await world.rows(PermissionRule)
    assert (rule.effect, rule.command, rule.task_id) == ("allow", ("make",), world.task.id)


async def test_a_second_answer_to_what_is_left_is_a_conflict(world: Any) -> None:
    asked = await left(world)
    await answer(world, asked.id)
    with pytest.raises(Conflict, match="already allowed"):
        await answer(world, asked.id, "reject")


@pytest.mark.parametrize("agent", [{"failure": "crash"}, {"status": "RUNNING", "failure": None, "stopped_at": None}])
async def test_what_nobody_can_go_on_with_is_not_answered(world: Any, agent: dict[str, Any]) -> None:
    asked = await left(world, **agent)
    with pytest.raises(Conflict, match="its agent is gone"):
        await answer(world, asked.id)
    assert await world.rows(Turn) == []
