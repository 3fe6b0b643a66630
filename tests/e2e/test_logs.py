"""What a host logs belongs to the request, the task and the session that it comes from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio

DEADLINE_S = 120
SAID = "nothing-of-this-in-the-log"
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


TOLD = """
[log]
path = {log}
format = "json"
[agents.breaks]
command = ["/bin/sh", "-c", "exit 7"]
[credentials.unset]
variables = ["NEVER_SET_ANYWHERE"]
"""


async def test_the_log_tells_the_life_of_the_host_and_its_agents(make_host: Any, tmp_path: Path) -> None:
    log = tmp_path / "host.log"
    host = make_host(TOLD.format(log=json.dumps(str(log))))
    for _ in range(5):
        with pytest.raises(ClientError):
            async with Client.connect(host.url, "kd_wrong-one", timeout_s=DEADLINE_S):
                pass
    async with Client.connect(host.url, host.token, timeout_s=DEADLINE_S) as client:
        board = (await client.call("board.create", {"name": "Work"}))["board"]

        async def launched(agent_type: str, id: str, **fields: Any) -> dict[str, Any]:
            """The agent, once it has ended or says that it idles."""
            about = {"board_id": board["id"], "title": "T", "description": "", **fields}
            task = (await client.call("task.create", about))["task"]
            launch = {"task_id": task["id"], "agent_type": agent_type, "prompt": f"say: {SAID}"}
            agent: dict[str, Any] = (await client.call("agent.launch", launch, request_id=id))["agent"]
            with anyio.fail_after(DEADLINE_S):
                while agent["status"] in ("PENDING", "STARTING") or agent["activity"] not in (None, "idle"):
                    await anyio.sleep(0.05)
                    agent = (await client.call("agent.status", {"agent_id": agent["id"]}))["agent"]
            return agent

        broken = await launched("breaks", "mine-1")
        refused = await launched("demo", "mine-2", credentials=["unset"])
        whole = await launched("demo", "mine-3")
        whole = (await client.call("agent.stop", {"agent_id": whole["id"]}))["agent"]
        await client.call("backup.create", {})
    assert host.stop() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(line["event"], line.get("agent_id")) for line in lines if line["level"] == "info"]

    def of(agent: dict[str, Any]) -> list[str]:
        return [event for event, id in told if id == agent["id"]]

    assert of(broken)[0] == "Agent breaks launched in bwrap, attempt 1"
    assert of(broken)[1].startswith("Agent breaks ended: FAILED (")
    assert "7" in of(broken)[1]
    assert [event.partition(":")[0] for event in of(refused)] == [
        "Agent demo launched in bwrap, attempt 1", "Credential unset refused", "Agent demo ended",
    ]  # fmt: skip
    assert of(whole) == ["Agent demo launched in bwrap, attempt 1", "Agent demo ended: STOPPED: stopped by local"]
    ids = {name: {line.get(name) for line in lines if line.get("agent_id") == whole["id"]} for name in
           ("task_id", "request_id", "session_id")}  # fmt: skip
    assert ids["task_id"] == {whole["task_id"]}
    assert ids["request_id"] == {"mine-3", None}
    assert whole["session_id"] in ids["session_id"]
    alone = [event.partition(" ")[0] for event, id in told if id is None]
    assert alone == ["Starts:", "audit", "Listens", "Log-in", "Backed", "Stops:", "Log-in", "audit"]
    assert told[-3][0] == "Stops: SIGTERM"
    assert told[-2][0] == "Log-in refused from 127.0.0.1, 4 times more"
    assert SAID not in log.read_text()
    assert host.log() == ""
    found = subprocess.run(
        [sys.executable, "-m", "kandev_host", "logs", "--task", broken["task_id"]],
        env={**os.environ, **host.env}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ["launched" in found.stdout, "ended: FAILED" in found.stdout, found.stderr] == [True, True, ""]
