"""Going on with an earlier session: by the agent's own memory where it has one, else by what was said."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kandev_host.models import Session, Turn, UsageReading
from kandev_host.protocol.acp import Cost
from kandev_host.sessions.opening import ways_to_resume
from kandev_host.sessions.stage import Resume
from kandev_host.sessions.usage import Standing
from kandev_host.settings import SessionSettings

pytestmark = pytest.mark.anyio

BOTH = {"loadSession": True, "sessionCapabilities": {"resume": {}}}
GONE = {"error": {"code": -32002, "message": "No such session"}}
MISSING = {"error": {"code": -32601, "message": "Method not found"}}
SAID = "What was said: build it."
# It never answers session/load, and what is asked behind that it answers.
SILENT = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    results = {
        "initialize": {"protocolVersion": 1, "agentCapabilities": {"loadSession": True}},
        "session/new": {"sessionId": "new"},
        "session/prompt": {"stopReason": "end_turn"},
    }
    if message["method"] in results:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}), flush=True)
"""


def earlier(world: Any) -> Resume:
    session = Session(
        agent_id="before",
        task_id=world.task.id,
        acp_session_id="scripted-session",
        cwd="/workspace",
        protocol_version=1,
    )
    return Resume(session=session, transcript=SAID, lead="Go on.")


async def resumed(world: Any, tmp_path: Path, capabilities: Any, **script: Any) -> tuple[Session, list[str], list[Any]]:
    """The session, the methods that the agent was called with, and the blocks of the first prompt."""
    log = tmp_path / "lines"
    wanted = {"initialize": {"agentCapabilities": capabilities}, "log": str(log), **script}
    await world.start(wanted, prompt="more", resume=earlier(world))
    await world.until("acp.result")
    calls = [message for message in map(json.loads, log.read_text().splitlines()) if "method" in message]
    (prompt,) = [call["params"]["prompt"] for call in calls if call["method"] == "session/prompt"]
    opened = [call["method"] for call in calls if call["method"] in {"session/new", "session/load", "session/resume"}]
    return await world.session(), opened, prompt


def test_resume_goes_before_load_and_only_what_is_advertised_is_tried() -> None:
    assert ways_to_resume(BOTH) == ["resume", "load"]
    assert ways_to_resume({"loadSession": True, "sessionCapabilities": None}) == ["load"]
    assert ways_to_resume({"loadSession": "yes", "sessionCapabilities": []}) == ways_to_resume(None) == []


async def test_a_session_is_resumed_where_the_agent_can(world: Any, tmp_path: Path) -> None:
    session, calls, prompt = await resumed(world, tmp_path, BOTH, resume={"modes": None}, load=None)
    assert (session.opened, session.acp_session_id, calls) == ("resume", "scripted-session", ["session/resume"])
    assert [block["text"] for block in prompt] == ["Go on.", "more"]


async def test_an_advertised_resume_that_is_not_there_falls_back_to_load(world: Any, tmp_path: Path) -> None:
    """As qwen does; and some answer session/load with null."""
    session, calls, _ = await resumed(world, tmp_path, BOTH, resume=MISSING, load=None)
    assert (session.opened, calls) == ("load", ["session/resume", "session/load"])


@pytest.mark.parametrize("embedded", [True, False])
async def test_a_session_that_is_gone_is_opened_anew_with_what_was_said(
    world: Any, tmp_path: Path, embedded: bool
) -> None:
    """As gemini does: it advertises loadSession, and has no session."""
    capabilities = {"loadSession": True, "promptCapabilities": {"embeddedContext": embedded}}
    session, calls, prompt = await resumed(world, tmp_path, capabilities, load=GONE)
    assert (session.opened, calls) == ("transcript", ["session/load", "session/new"])
    context, asked = prompt
    assert (context["resource"] if embedded else context)["text"] == SAID
    assert (context["type"], asked["text"]) == ("resource" if embedded else "text", "more")
    (told,) = [error for error in world.payloads("acp.error") if error["code"] == "RESUMED_WITHOUT_MEMORY"]
    assert "No such session" in told["message"]


async def test_a_replay_is_not_told_twice(world: Any, tmp_path: Path) -> None:
    """What it says of the session as it is now is taken all the same."""
    commands = [{"name": "plan", "description": "Plan it"}]
    steps = [
        {"text": "said before"},
        {"tool": {"toolCallId": "t1", "title": "done before", "kind": "read", "status": "completed"}},
        {"update": {"sessionUpdate": "plan", "entries": [{"content": "old", "priority": "low", "status": "pending"}]}},
        {"update": {"sessionUpdate": "available_commands_update", "availableCommands": commands}},
    ]
    session, _, _ = await resumed(world, tmp_path, {"loadSession": True}, load={}, load_steps=steps)
    assert world.texts() == ["Done."]
    assert [log for log in world.payloads("acp.log") if "before" in str(log)] == []
    assert session.commands == commands


async def test_the_prompt_is_kept_as_it_was_given(world: Any, tmp_path: Path) -> None:
    await resumed(world, tmp_path, {"loadSession": True}, load=GONE)
    (turn,) = await world.rows(Turn)
    assert turn.prompt == [{"type": "text", "text": "more"}]


async def test_the_mode_is_set_after_a_load(world: Any, tmp_path: Path) -> None:
    """Agents are back in their own default after it, which may be one that asks nobody."""
    modes = {"currentModeId": "auto", "availableModes": [{"id": "auto", "name": "A"}, {"id": "ask", "name": "B"}]}
    log = tmp_path / "lines"
    script = {
        "initialize": {"agentCapabilities": {"loadSession": True}}, "load": {"modes": modes}, "log": str(log),
    }  # fmt: skip
    await world.start(script, prompt="more", resume=earlier(world), mode="ask")
    await world.until("acp.result")
    methods = [json.loads(line).get("method") for line in log.read_text().splitlines()]
    assert methods.index("session/load") < methods.index("session/set_mode") < methods.index("session/prompt")


async def test_an_agent_that_dies_in_opening_its_session_again_has_failed(world: Any) -> None:
    script = {"initialize": {"agentCapabilities": {"loadSession": True}}, "load_steps": [{"exit": 5}]}
    agent = await world.ended(await world.start(script, prompt="more", resume=earlier(world)))
    assert (agent.status, agent.failure, agent.session_id) == ("FAILED", "crash", None)


async def test_an_agent_that_is_silent_about_its_earlier_session_is_given_what_was_said(open_world: Any) -> None:
    world = await open_world(SessionSettings(request_timeout_s=3.0, kill_grace_s=0.4))
    await world.start(command=(sys.executable, "-c", SILENT), prompt="more", resume=earlier(world))
    await world.until("acp.result")
    session = await world.session()
    assert (session.opened, session.acp_session_id) == ("transcript", "new")


@pytest.mark.parametrize(("opens", "cost"), [({"load": {}}, "0.1"), ({"load": GONE}, "0.3")])
async def test_what_a_session_had_cost_before_is_not_counted_again(
    world: Any, tmp_path: Path, opens: dict[str, Any], cost: str
) -> None:
    """A new session, opened because the old one is gone, starts at nothing."""
    told = {"sessionUpdate": "usage_update", "used": 9, "size": 100, "cost": {"amount": 0.3, "currency": "USD"}}
    script = {"initialize": {"agentCapabilities": {"loadSession": True}}, "prompt": [{"update": told}], **opens}
    before = replace(earlier(world), standing=Standing(Cost(amount=Decimal("0.2"), currency="USD")))
    await world.start(script, prompt="more", resume=before, usage=UsageReading(cost_after_resume="continues"))
    await world.until("acp.result")
    assert (await world.usage()).cost == cost
