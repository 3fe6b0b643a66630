"""Sessions, MCP servers and directories, with an agent built on the official SDK as the other side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kandev_host.models import Session
from kandev_host.sessions.listing import read_list
from kandev_host.sessions.stage import Equipment, Resume
from kandev_host.settings import SessionSettings

pytestmark = pytest.mark.anyio

GIVEN = Equipment(
    mcp_servers=(
        {"name": "notes", "command": "/usr/bin/notes", "args": ["-q"], "env": [{"name": "A", "value": "b"}]},
        {"type": "http", "name": "wiki", "url": "http://127.0.0.1:8377/mcp", "headers": []},
    ),
    directories=("/directories/books",),
)


@pytest.mark.parametrize("again", [False, True])
async def test_an_agent_built_on_the_sdk_gets_its_servers_and_lists_and_closes_its_sessions(
    open_world: Any, tmp_path: Path, again: bool
) -> None:
    world = await open_world(SessionSettings(kill_grace_s=1.0))
    calls = tmp_path / "calls"
    command = (sys.executable, str(Path(__file__).with_name("sdk_sessions_agent.py")), str(calls))
    before = Session(agent_id="a", task_id=world.task.id, acp_session_id="sdk-1", cwd="/workspace", protocol_version=1)
    resume = Resume(session=before, transcript="") if again else None
    agent_id = await world.start(command=command, prompt="hello", equipment=GIVEN, resume=resume)
    result = await world.until("acp.result")
    how = "resume sdk-1" if again else "new"
    assert result["summary"] == f"{how}: McpServerStdio notes, HttpMcpServer wiki; /directories/books"
    found = read_list(await world.supervisor.live(agent_id).ask("session/list", {}, 20.0))
    assert [(item.session_id, item.title) for item in found.sessions] == [("sdk-1", "No. 1"), ("sdk-2", "No. 2")]
    assert found.next_cursor == "more"
    await world.supervisor.stop(agent_id)
    assert calls.read_text() == "close sdk-1\n"
