"""The official SDK as the other side: an agent built on it, and its schema as the judge of what the host sends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from acp import schema

from kandev_host.interfaces import Principal

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
REQUESTS: dict[str, Any] = {
    "initialize": schema.InitializeRequest,
    "authenticate": schema.AuthenticateRequest,
    "session/new": schema.NewSessionRequest,
    "session/set_mode": schema.SetSessionModeRequest,
    "session/set_config_option": schema.SetSessionConfigOptionSelectRequest,
    "session/prompt": schema.PromptRequest,
    "session/cancel": schema.CancelNotification,
}


async def test_an_agent_built_on_the_sdk_runs_a_whole_turn(world: Any) -> None:
    command = (sys.executable, str(Path(__file__).with_name("sdk_agent.py")))
    await world.start(command=command, prompt="hello", mode="ask", authenticate="key")
    permission = (await world.until("permission.requested"))["permission"]
    assert permission["tool_call"]["title"] == "Write a file"
    await world.broker.answer(permission["id"], principal=USER, option_id="y")
    result = await world.until("acp.result")
    assert (result["status"], result["summary"], result["usage"]["total_tokens"]) == ("completed", "hello y", 9)
    assert (await world.session()).modes["currentModeId"] == "ask"


async def test_all_that_the_host_sends_is_valid_in_the_sdks_schema(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    option = {"id": "m", "name": "Mode", "category": "mode", "type": "select", "currentValue": "auto"}
    option["options"] = [{"group": "g", "name": "G", "options": [{"value": "ask", "name": "Ask"}]}]
    script = {
        "log": str(log),
        "initialize": {"authMethods": [{"id": "key", "name": "Key"}]},
        "new": {"configOptions": [option]},
    }
    asked = {"permission": {"toolCall": {"toolCallId": "1"}}}
    agent_id = await world.start(script, prompt=[asked, asked, {"sleep_s": 600}], mode="ask", authenticate="key")
    first = (await world.until("permission.requested"))["permission"]
    await world.broker.answer(first["id"], principal=USER, option_id="once")
    await world.until("permission.requested", lambda payload: payload["permission"]["id"] != first["id"])
    await world.supervisor.cancel(agent_id)
    await world.until("acp.result")

    methods = []
    outcomes = []
    for line in log.read_bytes().splitlines():
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        if "method" in message:
            methods.append(message["method"])
            _judge(REQUESTS[message["method"]], message["params"])
        else:
            outcomes.append(message["result"]["outcome"]["outcome"])
            _judge(schema.RequestPermissionResponse, message["result"])
    assert methods == [*list(REQUESTS)[:3], *list(REQUESTS)[4:]]
    assert outcomes == ["selected", "cancelled"]


def _judge(model: Any, sent: dict[str, Any]) -> None:
    """Valid, and nothing in it that the schema does not know."""
    known = model.model_validate(sent).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert known == sent
