"""The official SDK as the other side: an agent built on it, and its schema as the judge of what the host sends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from acp import schema

from kandev_host.interfaces import Principal
from kandev_host.settings import SessionSettings

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")


async def test_an_agent_built_on_the_sdk_runs_a_whole_turn(open_world: Any) -> None:
    world = await open_world(SessionSettings())  # it takes the SDK seconds to start where there is much to do
    command = (sys.executable, str(Path(__file__).with_name("sdk_agent.py")))
    await world.start(command=command, prompt="hello", mode="ask", authenticate="key")
    permission = (await world.until("permission.requested"))["permission"]
    assert permission["tool_call"]["title"] == "Write a file"
    await world.broker.answer(permission["id"], principal=USER, option_id="y")
    result = await world.until("acp.result")
    assert (result["status"], result["summary"], result["usage"]["total_tokens"]) == ("completed", "hello y", 9)
    assert (await world.session()).modes["currentModeId"] == "ask"


async def test_an_agent_built_on_the_sdk_is_logged_in_and_has_its_options_set(open_world: Any) -> None:
    world = await open_world(SessionSettings())
    command = (sys.executable, str(Path(__file__).with_name("sdk_options_agent.py")))
    agent_id = await world.start(command=command, prompt="hello", options={"model": "big"})
    await world.until("acp.error", lambda payload: payload["code"] == "NEEDS_LOGIN")
    run = world.supervisor.live(agent_id)
    assert [(method.id, method.kind) for method in run.login.methods] == [("key", "agent"), ("cli", "terminal")]
    await run.login.authenticate("key")
    assert (await world.until("acp.result"))["summary"] == "big False"
    assert [option.current_value for option in await run.steering.set_option("fast", "true")] == ["big", True]
    await world.prompt(agent_id, "again")
    assert (await world.until("acp.result", lambda payload: "True" in payload["summary"]))["summary"] == "big True"
    assert (await world.session()).title == "A title"


async def test_capabilities_say_what_is_offered_and_nothing_else(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    await world.start({"log": str(log)})
    await world.until_idle()
    sent = json.loads(log.read_bytes().splitlines()[0])["params"]
    _judge(schema.InitializeRequest, sent)
    assert sent["clientCapabilities"] == {
        "fs": {"readTextFile": False, "writeTextFile": False},
        "terminal": False,
        "auth": {"terminal": True},
        "session": {"configOptions": {"boolean": {}}},
        "elicitation": {"form": {}, "url": {}},
    }


def _judge(model: Any, sent: dict[str, Any]) -> None:
    """Valid, and nothing in it that the schema does not know."""
    known = model.model_validate(sent).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert known == sent
