"""What a person has remembered is a rule from then on: listed, obeyed, named as the reason, and forgotten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
PROMPT = "write HELLO.md: hello"


async def until(client: Client, *actions: str) -> tuple[str, dict[str, Any]]:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action in actions:
                return message.action, dict(message.payload)
    raise AssertionError(f"{actions} never came")


def ran(host: Any, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "kandev_host", *arguments, "--json"]
    env = {**os.environ, "KANDEV_HOME": str(host.home)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


async def test_a_rejection_that_is_remembered_is_a_rule_until_it_is_forgotten(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        board = (await client.call("board.create", {"name": "Work"}))["board"]
        task = (await client.call("task.create", {"board_id": board["id"], "title": "Hello", "description": ""}))[
            "task"
        ]
        await client.call("task.subscribe", {"task_id": task["id"]})
        launch = {"task_id": task["id"], "agent_type": "demo", "prompt": PROMPT}
        agent_id = (await client.call("agent.launch", launch))["agent"]["id"]
        _, asked = await until(client, "permission.requested")
        permission = asked["permission"]
        option = next(each["optionId"] for each in permission["options"] if each["kind"] == "reject_once")
        answer = {"permission_id": permission["id"], "option_id": option, "remember": "task"}
        rule = (await client.call("permission.respond", {**answer, "digest": permission["digest"]}))["rule"]
        assert (rule["effect"], rule["task_id"]) == ("deny", task["id"])
        await until(client, "acp.result")

        await client.call("agent.prompt", {"agent_id": agent_id, "prompt": PROMPT})
        action, told = await until(client, "permission.requested", "permission.resolved")
        assert (action, told["permission"]["state"]) == ("permission.resolved", "rejected")
        assert "rule" in told["permission"]["reason"]
        await until(client, "acp.result")

        listed = await anyio.to_thread.run_sync(ran, host, "permission", "rules", "--task", task["id"])
        assert [each["id"] for each in listed["rules"]] == [rule["id"]]
        await anyio.to_thread.run_sync(ran, host, "permission", "forget", rule["id"])
        assert (await client.call("permission.rules", {"task_id": task["id"]}))["rules"] == []
        await client.call("agent.prompt", {"agent_id": agent_id, "prompt": PROMPT})
        assert (await until(client, "permission.requested", "permission.resolved"))[0] == "permission.requested"
        await client.call("agent.stop", {"agent_id": agent_id, "force": True})
