"""Every message that the host sends, over whole sessions, as the official SDK's models judge it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from acp import schema
from pydantic import TypeAdapter

from kandev_host.errors import TimedOut
from kandev_host.interfaces import Principal
from kandev_host.models import Session
from kandev_host.sessions.stage import Equipment, Resume

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
SENT: dict[str, Any] = {
    "initialize": schema.InitializeRequest,
    "authenticate": schema.AuthenticateRequest,
    "logout": schema.LogoutRequest,
    "session/new": schema.NewSessionRequest,
    "session/load": schema.LoadSessionRequest,
    "session/resume": schema.ResumeSessionRequest,
    "session/list": schema.ListSessionsRequest,
    "session/close": schema.CloseSessionRequest,
    "session/delete": schema.DeleteSessionRequest,
    "session/set_mode": schema.SetSessionModeRequest,
    "session/set_config_option": schema.SetSessionConfigOptionSelectRequest,
    "session/prompt": schema.PromptRequest,
    "session/cancel": schema.CancelNotification,
    "$/cancel_request": schema.CancelRequestNotification,
}
OPTION = {
    "id": "m",
    "name": "Mode",
    "category": "mode",
    "type": "select",
    "currentValue": "auto",
    "options": [{"group": "g", "name": "G", "options": [{"value": "ask", "name": "Ask"}]}],
}
MODES = {"currentModeId": "auto", "availableModes": [{"id": "auto", "name": "Auto"}, {"id": "ask", "name": "Ask"}]}
CAN = {
    "loadSession": True,
    "promptCapabilities": {"image": True, "audio": True, "embeddedContext": True},
    "sessionCapabilities": {"resume": {}},
}
ASKED = {"permission": {"toolCall": {"toolCallId": "1"}}}
BLOCKS = [
    {"type": "text", "text": "look at"},
    {"type": "image", "data": "AA==", "mimeType": "image/png"},
    {"type": "audio", "data": "AA==", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "file:///workspace/a.py", "name": "a.py", "mimeType": "text/x-python", "size": 3},
    {"type": "resource", "resource": {"uri": "file:///workspace/b.md", "mimeType": "text/markdown", "text": "# B"}},
    {"type": "resource", "resource": {"uri": "file:///workspace/c.bin", "blob": "AA=="}},
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the agent writes down all that it is sent."""
    return tmp_path / "lines"


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def judged(log: Path) -> tuple[Counter[str], list[dict[str, Any]]]:
    """How often each method was called, and the answers; each message is valid, with nothing that no schema knows."""
    calls: Counter[str] = Counter()
    answers = []
    ids = set()
    for message in lines(log):
        assert message.pop("jsonrpc") == "2.0"
        if "method" not in message:
            assert message.keys() in ({"id", "result"}, {"id", "error"})
            answers.append(message)
            continue
        method = message["method"]
        request = method not in {"session/cancel", "$/cancel_request"}
        assert message.keys() == {"method", "params"} | ({"id"} if request else set())
        assert not request or message["id"] not in ids
        ids.add(message.get("id"))
        boolean = method == "session/set_config_option" and message["params"].get("type") == "boolean"
        judge(schema.SetSessionConfigOptionBooleanRequest if boolean else SENT[method], message["params"])
        calls[method] += 1
    return calls, answers


def judge(model: Any, sent: dict[str, Any]) -> None:
    """Valid, and nothing in it that the schema does not know."""
    known = TypeAdapter(model).validate_python(sent)
    assert TypeAdapter(model).dump_python(known, by_alias=True, exclude_unset=True, mode="json") == sent


def before(world: Any) -> Resume:
    row = Session(
        agent_id="before",
        task_id=world.task.id,
        acp_session_id="scripted-session",
        cwd="/workspace",
        protocol_version=1,
    )
    return Resume(session=row, transcript="What was said: build it.", lead="Go on.")


async def test_a_whole_session_is_valid(world: Any, log: Path) -> None:
    """A log-in, an option, a prompt of every kind of block, three answers to questions, and a cancel."""
    script = {
        "log": str(log),
        "initialize": {"agentCapabilities": CAN, "authMethods": [{"id": "key", "name": "Key"}]},
        "new": {"configOptions": [OPTION], "modes": MODES},
        "prompt": [ASKED, ASKED, ASKED, {"sleep_s": 600}],
    }
    agent_id = await world.start(script, mode="ask", authenticate="key")
    await world.until_idle()
    await world.supervisor.prompt(agent_id, BLOCKS, "user")
    answered: set[str] = set()
    for option_id in ("once", "reject", None):
        permission = (await world.until("permission.requested", lambda p: p["permission"]["id"] not in answered))[
            "permission"
        ]
        answered.add(permission["id"])
        if option_id is None:
            await world.supervisor.cancel(agent_id)
        else:
            await world.broker.answer(permission["id"], principal=USER, option_id=option_id)
    await world.until("acp.result")
    calls, answers = judged(log)
    wanted = ["initialize", "authenticate", "session/new", "session/set_config_option", "session/prompt"]
    assert [*calls] == [*wanted, "session/cancel"]
    for answer in answers:
        judge(schema.RequestPermissionResponse, answer["result"])
    outcomes = [answer["result"]["outcome"] for answer in answers]
    assert [outcome.get("optionId", outcome["outcome"]) for outcome in outcomes] == ["once", "reject", "cancelled"]


async def test_a_mode_is_set_as_the_schema_says(world: Any, log: Path) -> None:
    await world.start({"log": str(log), "new": {"modes": MODES}}, mode="ask", prompt="go")
    await world.until("acp.result")
    assert judged(log)[0]["session/set_mode"] == 1


async def test_options_and_a_log_out_are_set_as_the_schema_says(world: Any, log: Path) -> None:
    fast = {"id": "fast", "name": "Fast", "type": "boolean", "currentValue": False}
    capabilities = {"agentCapabilities": {"auth": {"logout": {}}}}
    new = {"modes": MODES, "configOptions": [fast]}
    agent_id = await world.start({"log": str(log), "initialize": capabilities, "new": new})
    await world.until_idle()
    run = world.supervisor.live(agent_id)
    await run.steering.set_option("fast", True)
    await run.steering.set_option("mode", "ask")
    await run.login.logout()
    assert [*judged(log)[0]][2:] == ["session/set_config_option", "session/set_mode", "logout"]


async def test_answers_to_elicitations_are_as_the_schema_says(world: Any, log: Path) -> None:
    form = {
        "mode": "form",
        "message": "Who are you?",
        "requestedSchema": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "times": {"type": "integer"},
                "share": {"type": "number"},
                "sure": {"type": "boolean"},
                "of": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
            },
        },
    }
    url = {"mode": "url", "message": "Log in there", "elicitationId": "e-1", "url": "https://example.org/device"}
    filled = {"name": "Ada", "times": 3, "share": 0.5, "sure": True, "of": ["a", "b"]}
    steps = [{"elicit": form}, {"elicit": url}, {"elicit": form}, {"elicit": url}]
    await world.start({"log": str(log)}, prompt=steps)
    answered: set[str] = set()
    for outcome, content in (("accept", filled), ("accept", None), ("decline", None), ("cancel", None)):
        told = await world.until("elicitation.requested", lambda p: p["elicitation"]["id"] not in answered)
        answered.add(told["elicitation"]["id"])
        await world.broker.elicitations.answer(
            told["elicitation"]["id"], principal=USER, outcome=outcome, content=content
        )
    await world.until("acp.result")
    results = [answer["result"] for answer in judged(log)[1]]
    for result in results:
        judge(schema.CreateElicitationResponse, result)
    assert results == [
        {"action": "accept", "content": filled},
        {"action": "accept"},
        {"action": "decline"},
        {"action": "cancel"},
    ]


@pytest.mark.parametrize("way", ["new", "resume", "load"])
async def test_servers_and_directories_are_given_as_the_schema_says(world: Any, log: Path, way: str) -> None:
    sessions = {"resume": {}, "close": {}, "additionalDirectories": {}}
    can = {**CAN, "sessionCapabilities": sessions, "mcpCapabilities": {"http": True}}
    script = {"log": str(log), "initialize": {"agentCapabilities": can}, "close": {}}
    answers: dict[str, Any] = {} if way == "new" else {way: {}}
    given = Equipment(
        mcp_servers=(
            {"name": "notes", "command": "/usr/bin/notes", "args": ["-q"], "env": [{"name": "A", "value": "b"}]},
            {"type": "http", "name": "wiki", "url": "http://127.0.0.1:1/", "headers": [{"name": "A", "value": "b"}]},
        ),
        directories=("/directories/books",),
    )
    resume = None if way == "new" else before(world)
    agent_id = await world.start({**script, **answers}, prompt="go", equipment=given, resume=resume)
    await world.until("acp.result")
    await world.supervisor.stop(agent_id)
    calls, _ = judged(log)
    assert calls[f"session/{way}"] == calls["session/close"] == 1
    opened = next(message["params"] for message in lines(log) if message.get("method") == f"session/{way}")
    assert opened["mcpServers"] == [*given.mcp_servers]
    assert opened["additionalDirectories"] == ["/directories/books"]


async def test_a_request_is_withdrawn_as_the_schema_says(world: Any, log: Path) -> None:
    agent_id = await world.start({"log": str(log)}, prompt=[{"text": "at it"}, {"sleep_s": 600}])
    await world.until("acp.log")
    with pytest.raises(TimedOut):
        await world.supervisor.live(agent_id).ask("session/list", {}, 0.1)
    await world.supervisor.cancel(agent_id)
    await world.until("acp.result")
    assert [*judged(log)[0]][3:] == ["session/list", "$/cancel_request", "session/cancel"]


@pytest.mark.parametrize("way", ["resume", "load", "new"])
async def test_a_session_that_goes_on_is_valid(world: Any, log: Path, way: str) -> None:
    """Also where the agent is given a transcript, as an embedded resource."""
    answers: dict[str, Any] = {} if way == "new" else {way: {}}
    await world.start(
        {"log": str(log), "initialize": {"agentCapabilities": CAN}, **answers}, prompt="more", resume=before(world)
    )
    await world.until("acp.result")
    calls, _ = judged(log)
    tried = [method for method in calls if method in {"session/resume", "session/load", "session/new"}]
    assert tried[-1] == f"session/{way}"


async def test_what_is_refused_is_refused_as_json_rpc_says(world: Any, log: Path) -> None:
    steps = [
        {"request": {"method": "session/request_permission", "params": {}}},
        {"request": {"method": "_mine/ask", "params": {}}},
        {"request": {"method": "nes/suggest"}},
        {"permission": {"toolCall": {"toolCallId": "1"}}, "withdraw": True},
    ]
    await world.start({"log": str(log)}, prompt=steps)
    await world.until("acp.result")
    _, answers = judged(log)
    errors = [answer["error"] for answer in answers]
    assert [error["code"] for error in errors] == [-32602, -32601, -32601, -32800]
    for error in errors:
        judge(schema.Error, error)
