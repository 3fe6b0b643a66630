"""Elicitation: a person fills in a form or opens an address; what they filled in is the agent's alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from acp import schema
from pydantic import TypeAdapter

from kandev_host.errors import Conflict, Forbidden, NotFound, ValidationFailed
from kandev_host.interfaces import Principal
from kandev_host.models import Elicitation
from kandev_host.secrets import known
from kandev_host.settings import PermissionSettings, SessionSettings

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
CANARY = "correct-horse-battery-staple"
FORM = {
    "sessionId": "scripted-session",
    "mode": "form",
    "message": "How shall I log in?",
    "requestedSchema": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "password": {"type": "string"},
            "way": {"type": "string", "oneOf": [{"const": "key", "title": "With a key"}]},
            "times": {"type": "integer", "maximum": 3},
        },
        "required": ["name"],
    },
}
URL = {
    "sessionId": "scripted-session",
    "mode": "url",
    "message": "Log in there",
    "elicitationId": "e-1",
    "url": "https://example.org/device?code=1",
}


def step(params: Any) -> dict[str, Any]:
    return {"request": {"method": "elicitation/create", "params": params}}


async def asked(world: Any, params: Any = FORM, *more: Any, **how: Any) -> dict[str, Any]:
    await world.start(prompt=[step(params), *more], **how)
    return (await world.until("elicitation.requested"))["elicitation"]


async def result(world: Any) -> Any:
    """What the agent got."""
    await world.until("acp.result")
    return json.loads(world.texts()[0])["result"]


async def answer(world: Any, row: dict[str, Any], outcome: Any, content: Any = None) -> Elicitation:
    return await world.broker.elicitations.answer(row["id"], principal=USER, outcome=outcome, content=content)


async def test_what_a_person_filled_in_reaches_the_agent(world: Any) -> None:
    row = await asked(world)
    assert (row["mode"], row["message"], row["state"]) == ("form", "How shall I log in?", "pending")
    content = {"name": "Ada", "way": "key", "times": 3}
    resolved = await answer(world, row, "accept", content)
    assert (resolved.state, resolved.answered, resolved.decided_by) == ("accepted", ("name", "way", "times"), "user-1")
    assert await result(world) == {"action": "accept", "content": content}


@pytest.mark.parametrize(("outcome", "state"), [("decline", "declined"), ("cancel", "cancelled")])
async def test_an_elicitation_is_declined_or_cancelled(world: Any, outcome: str, state: str) -> None:
    row = await asked(world)
    resolved = await answer(world, row, outcome)
    assert (resolved.state, resolved.reason) == (state, f"A user {state} it")
    assert await result(world) == {"action": outcome}


async def test_what_a_person_filled_in_is_not_stored(world: Any, tmp_path: Path) -> None:
    await world.start(prompt=[{"elicit": FORM}])
    row = (await world.until("elicitation.requested"))["elicitation"]
    with pytest.raises(ValidationFailed) as refused:
        await answer(world, row, "accept", {"name": "", "password": CANARY})
    assert CANARY not in str(refused.value)
    await answer(world, row, "accept", {"name": "n", "password": CANARY})
    await world.until("acp.result")
    assert world.texts() == ["elicitation: accept name password"]
    assert [path.name for path in files(tmp_path) if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in "".join(bytes(item.payload).decode() for item in world.published)


async def test_a_form_hides_nothing_that_its_agent_wrote_itself(world: Any) -> None:
    command = "git push --force origin main"
    form = {
        **FORM,
        "message": "Shall it be force-pushed-now?",
        "requestedSchema": {
            "type": "object",
            "properties": {
                "token_name": {"type": "string", "default": command},
                "api_key": {"type": "string"},
                "password": {"type": "string"},
            },
        },
    }
    row = await asked(world, form)
    await answer(world, row, "accept", {"token_name": command, "api_key": "force-pushed-now", "password": CANARY})
    cleaned = known.of(row["agent_id"]).clean_text(f"{command} force-pushed-now {CANARY}")
    assert cleaned == f"{command} force-pushed-now [redacted]"
    assert known.clean_text(CANARY) == CANARY


async def test_what_does_not_fit_is_refused_and_still_waits(world: Any) -> None:
    row = await asked(world)
    with pytest.raises(ValidationFailed) as refused:
        await answer(world, row, "accept", {"name": "Ada", "times": 4})
    assert refused.value.details["field"] == "content.times"
    with pytest.raises(ValidationFailed):
        await answer(world, row, "accept")
    with pytest.raises(ValidationFailed):
        await answer(world, row, "decline", {"name": "Ada"})
    assert (await world.rows(Elicitation))[0].state == "pending"


async def test_an_address_is_shown_accepted_and_done_with(world: Any) -> None:
    done = {"notify": {"method": "elicitation/complete", "params": {"elicitationId": "e-1"}}}
    row = await asked(world, URL, done)
    assert (row["url"], row["requested_schema"]) == (URL["url"], None)
    await answer(world, row, "accept")
    assert await result(world) == {"action": "accept"}
    told = await world.until("elicitation.resolved", lambda payload: payload["elicitation"]["completed_at"] is not None)
    assert told["elicitation"]["state"] == "accepted"
    assert (await world.rows(Elicitation))[0].completed_at is not None


async def test_an_address_that_is_done_with_is_still_asked_about(world: Any) -> None:
    """Nothing is accepted by what an agent says."""
    await world.start(
        prompt=[
            {"notify": {"method": "elicitation/complete", "params": {"elicitationId": "e-1"}}},
            {"notify": {"method": "elicitation/complete", "params": {"elicitationId": 7}}},
            step(URL),
        ]
    )
    row = (await world.until("elicitation.requested"))["elicitation"]
    assert (row["state"], row["completed_at"]) == ("pending", None)
    await answer(world, row, "decline")
    assert await result(world) == {"action": "decline"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "picture"},
        {"mode": "_own"},
        {"mode": None},
        {"message": 1},
        {"message": "x" * 20_000},
        {"requestedSchema": None},
        {"requestedSchema": {"properties": {"a": 1}}},
        {"mode": "url"},
        {**URL, "url": "file:///etc/passwd"},
        {**URL, "url": "javascript:alert(1)"},
        {**URL, "url": "https://"},
        {**URL, "url": "https://a b"},
        {**URL, "url": "https://example.org/\n"},
        {**URL, "elicitationId": ""},
    ],
    ids=str,
)
async def test_what_cannot_be_shown_is_refused(world: Any, wrong: dict[str, Any]) -> None:
    await world.start(prompt=[step(FORM | wrong)])
    await world.until("acp.result")
    assert json.loads(world.texts()[0])["error"]["code"] == -32602
    assert await world.rows(Elicitation) == []


async def test_only_a_user_answers(world: Any) -> None:
    row = await asked(world)
    agent = Principal("agent-1", "agent", "An agent", scopes=frozenset({"*"}))
    with pytest.raises(Forbidden):
        await world.broker.elicitations.answer(row["id"], principal=agent, outcome="decline")


async def test_a_second_answer_is_a_conflict(world: Any) -> None:
    row = await asked(world)
    await answer(world, row, "decline")
    with pytest.raises(Conflict, match="already declined"):
        await answer(world, row, "accept", {"name": "Ada"})
    with pytest.raises(NotFound):
        await answer(world, {"id": "nothing"}, "decline")


async def test_a_cancelled_turn_answers_permissions_and_elicitations(world: Any) -> None:
    await asked(world)
    await world.supervisor.cancel(world.supervisor.runs[0].agent.id)
    assert (await world.until("acp.result"))["stop_reason"] == "cancelled"
    assert (await world.rows(Elicitation))[0].state == "cancelled"


async def test_an_agent_that_ends_leaves_none_pending(world: Any) -> None:
    row = await asked(world)
    await world.supervisor.stop(row["agent_id"])
    found = (await world.rows(Elicitation))[0]
    assert (found.state, found.decided_by) == ("cancelled", "host")


async def test_silence_accepts_nothing(open_world: Any) -> None:
    world = await open_world(permissions=PermissionSettings(wait_timeout_s=0.1))
    await asked(world)
    assert await result(world) == {"action": "cancel"}
    assert (await world.rows(Elicitation))[0].reason == "nobody answered in time"


async def test_while_it_waits_the_activity_says_so(world: Any) -> None:
    row = await asked(world)
    await world.until("acp.status", lambda payload: payload["activity"] == "waiting_elicitation")
    await answer(world, row, "decline")
    await world.until("acp.result")
    activities = [payload["activity"] for payload in world.payloads("acp.status")]
    assert activities == ["starting", "idle", "prompting", "waiting_elicitation", "prompting", "idle"]


async def test_an_agent_that_was_answered_behind_its_turn_is_idle(world: Any) -> None:
    agent_id = await world.start(prompt=[{"text": "done"}, {"after": [{"sleep_s": 0.5}, step(FORM)]}])
    row = (await world.until("elicitation.requested"))["elicitation"]
    await answer(world, row, "decline")
    with anyio.fail_after(60):
        while world.supervisor.live(agent_id).activity != "idle":
            await anyio.sleep(0.01)


async def test_an_agent_may_ask_before_its_session_is_open(world: Any) -> None:
    params = {name: value for name, value in URL.items() if name != "sessionId"} | {"requestId": 1}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.start, {"new_steps": [step(params)], "prompt": [{"text": "ready"}]})
        row = (await world.until("elicitation.requested"))["elicitation"]
        assert (row["session_id"], row["turn_id"]) == (None, None)
        await answer(world, row, "accept")
        await world.until_idle()


async def test_an_agent_that_waits_for_a_person_before_its_session_is_open_is_not_out_of_time(open_world: Any) -> None:
    world = await open_world(SessionSettings(request_timeout_s=2.0, kill_grace_s=0.4))
    params = {name: value for name, value in URL.items() if name != "sessionId"} | {"requestId": 1}
    await world.start({"new_steps": [step(params)]})
    row = (await world.until("elicitation.requested"))["elicitation"]
    await anyio.sleep(2.5)  # that time passes is what is tried
    await answer(world, row, "accept")
    await world.until_idle()


async def test_what_the_host_offers_and_answers_is_valid_in_the_sdks_schema(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    await world.start({"log": str(log)}, prompt=[step(FORM), step(URL), step(URL)])
    for number, (outcome, content) in enumerate((("accept", {"name": "Ada"}), ("accept", None), ("decline", None))):
        seen = [row["id"] for row in rows(world)[:number]]
        row = await world.until("elicitation.requested", lambda told, seen=seen: told["elicitation"]["id"] not in seen)
        await answer(world, row["elicitation"], outcome, content)
    await world.until("acp.result")
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    offered = schema.InitializeRequest.model_validate(lines[0]["params"]).client_capabilities
    assert offered.elicitation.form is not None
    assert offered.elicitation.url is not None
    judge = TypeAdapter(schema.CreateElicitationResponse)
    for sent in (line["result"] for line in lines if "method" not in line):
        assert judge.validate_python(sent).model_dump(by_alias=True, exclude_unset=True, mode="json") == sent


def rows(world: Any) -> list[dict[str, Any]]:
    return [payload["elicitation"] for payload in world.payloads("elicitation.requested")]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
