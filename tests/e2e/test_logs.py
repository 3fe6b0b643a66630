"""What a host logs belongs to the request, the task and the session that it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio

DEADLINE_S = 120
FAILS = """
from kandev_host import Action, hookimpl

async def fails(call, request):
    raise ValueError("in a request")

@hookimpl
def kandev_actions(services):
    return Action("fails.now", dict, fails, scope="tasks:read")

@hookimpl
def kandev_turn_policy(turn):
    raise ValueError("in a session")
"""


async def test_lines_name_their_request_task_agent_and_session(make_host: Any, tmp_path: Path) -> None:
    info = tmp_path / "site/fails-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site/fails.py").write_text(FAILS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fails\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kandev]\nfails = fails\n")
    log = tmp_path / "host.log"
    host = make_host(f'[log]\npath = "{log}"\nformat = "json"\n', PYTHONPATH=str(tmp_path / "site"))
    async with Client.connect(host.url, host.token, timeout_s=DEADLINE_S) as client:
        with pytest.raises(ClientError):
            await client.call("fails.now", {}, request_id="mine-1")
        board = (await client.call("board.create", {"name": "Work"}))["board"]
        fields = {"board_id": board["id"], "title": "Hello", "description": ""}
        task = (await client.call("task.create", fields))["task"]
        await client.call("task.subscribe", {"task_id": task["id"]})
        launch = {"task_id": task["id"], "agent_type": "demo", "prompt": "say: hello"}
        agent = (await client.call("agent.launch", launch))["agent"]
        with anyio.fail_after(DEADLINE_S):
            async for message in client.notifications():
                if message.action == "acp.error":
                    break
        session = (await client.call("agent.session", {"agent_id": agent["id"]}))["session"]
    assert host.stop() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    asked = [line for line in lines if "in a request" in line["event"]]
    assert {line.get("request_id") for line in asked} == {"mine-1"}
    held = [line for line in lines if "in a session" in line["event"]]
    ids = [(line.get("request_id"), line["task_id"], line["agent_id"]) for line in held]
    assert set(ids) == {(None, task["id"], agent["id"])}
    assert held[-1]["session_id"] == session["id"]
    assert host.log() == ""
