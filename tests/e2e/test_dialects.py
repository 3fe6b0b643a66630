"""A shell script as an agent, in a jail, from the socket and from the command line."""

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

DEADLINE_S = 60
SCRIPT = """#!/bin/sh
echo '{"type":"progress","data":{"progress":25,"message":"Analyzing code..."}}'
echo "You said: $(cat)" | tee said.txt
case "$KANDEV_PROMPT" in *wait*) sleep 600;; esac
echo '{"type":"result","data":{"summary":"All done","artifacts":[{"path":"/workspace/said.txt"}]}}'
"""


@pytest.fixture(scope="module")
def scripted(make_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    script = tmp_path_factory.mktemp("agent") / "old-agent"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    types = "\n".join(
        f"[agents.{dialect}]\ncommand = [{json.dumps(str(script))}]\ndialect = '{dialect}'"
        for dialect in ("lines", "auto")
    )
    return make_host(f"{types}\n[session]\ndialect_timeout_s = 0.5\n")


async def new_task(client: Client, agent_type: str, description: str) -> str:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    task = {"board_id": board["id"], "title": "Look", "description": description, "agent_type": agent_type}
    return str((await client.call("task.create", task))["task"]["id"])


async def until(client: Client, action: str) -> dict[str, Any]:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == action:
                return dict(message.payload)
    raise AssertionError(f"the socket closed before {action}")


@pytest.mark.parametrize("dialect", ["lines", "auto"])
async def test_a_shell_script_in_a_jail_completes_its_task(scripted: Any, dialect: str) -> None:
    async with Client.connect(scripted.url, scripted.token) as client:
        await client.subscribe("*")
        task_id = await new_task(client, dialect, "Please look")
        await client.call("orchestrator.start", {"task_id": task_id})
        progress = await until(client, "acp.progress")
        result = await until(client, "acp.result")
        changed = await until(client, "task.state_changed")
        transcript = await client.call("agent.transcript", {"task_id": task_id})
    assert (progress["progress"], progress["message"]) == (25, "Analyzing code...")
    assert (result["status"], result["summary"]) == ("completed", "All done")
    assert result["artifacts"] == [{"path": "/workspace/said.txt"}]
    assert changed["new_state"] == "COMPLETED"
    assert "You said: " in json.dumps(transcript)


async def test_a_shell_script_is_cancelled_from_the_socket(scripted: Any) -> None:
    async with Client.connect(scripted.url, scripted.token) as client:
        await client.subscribe("*")
        task_id = await new_task(client, "lines", "x")
        agent = (await client.call("agent.launch", {"task_id": task_id, "prompt": "please wait"}))["agent"]
        await until(client, "acp.log")
        with pytest.raises(ClientError) as caught:
            await client.call("agent.prompt", {"agent_id": agent["id"], "prompt": "more"})
        assert (caught.value.code, caught.value.details["state"]) == ("CONFLICT", "one_turn")
        await client.call("agent.cancel", {"agent_id": agent["id"]})
        assert (await until(client, "acp.result"))["status"] == "cancelled"
        with anyio.fail_after(DEADLINE_S):
            while (await client.call("agent.status", {"agent_id": agent["id"]}))["agent"]["status"] != "STOPPED":
                await until(client, "agent.updated")


def test_a_shell_script_runs_from_the_command_line(scripted: Any, tmp_path: Path) -> None:
    env = {**os.environ, "KANDEV_HOME": str(scripted.home), **scripted.env}
    command = [sys.executable, "-m", "kandev_host", "run", "--agent", "lines", "Say hello"]
    done = subprocess.run(
        command, check=False, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "You said: Say hello" in done.stdout
    assert "Analyzing code..." in done.stdout
