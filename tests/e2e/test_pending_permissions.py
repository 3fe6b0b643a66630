"""A question of an agent outlives `kill -9` of the host, and so does its answer."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
PROMPT = "write HELLO.md: hello"


async def until(client: Client, action: str) -> Any:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == action:
                return message.payload
    raise AssertionError(f"{action} never came")


async def asked(client: Client, action: str, **payload: Any) -> dict[str, Any]:
    """A question that waits."""
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    fields = {"board_id": board["id"], "title": "Hello", "description": PROMPT}
    task = (await client.call("task.create", fields))["task"]
    await client.call(action, {"task_id": task["id"], "agent_type": "demo", **payload})
    permission: dict[str, Any] = (await until(client, "permission.requested"))["permission"]
    return permission


async def pending(client: Client, permission: dict[str, Any]) -> list[str]:
    rows = (await client.call("permission.list", {"task_id": permission["task_id"]}))["permissions"]
    assert [row["id"] for row in rows] == [permission["id"]], "asked once"
    return [row["state"] for row in rows]


def yes(permission: dict[str, Any]) -> dict[str, Any]:
    option = next(each["optionId"] for each in permission["options"] if each["kind"] == "allow_once")
    return {"permission_id": permission["id"], "option_id": option, "digest": permission["digest"]}


async def test_a_pending_question_outlives_kill_9_and_its_answer_reaches_the_resumed_agent(make_host: Any) -> None:
    host = make_host("")
    async with Client.connect(host.url, host.token) as client:
        permission = await asked(client, "agent.launch", prompt=PROMPT)
        host.kill()
    host.start()
    async with Client.connect(host.url, host.token) as client:
        assert await pending(client, permission) == ["pending"]
        await client.call("permission.respond", yes(permission))
        host.kill()
    host.start()
    async with Client.connect(host.url, host.token) as client:
        await client.call("task.subscribe", {"task_id": permission["task_id"]})
        await client.call("agent.resume", {"agent_id": permission["agent_id"], "prompt": PROMPT})
        assert (await until(client, "acp.result"))["status"] == "completed"
        assert await pending(client, permission) == ["allowed"]
        diff = await client.call("workspace.diff", {"task_id": permission["task_id"]})
        assert "+hello" in diff["diff"]


async def test_a_run_that_goes_on_by_itself_takes_its_question_up_again(make_host: Any) -> None:
    host = make_host("")
    async with Client.connect(host.url, host.token) as client:
        permission = await asked(client, "orchestrator.start")
        host.kill()
    host.env["KANDEV_ORCHESTRATOR__AUTO_START"] = "true"
    host.start()
    async with Client.connect(host.url, host.token) as client:
        await client.call("task.subscribe", {"task_id": permission["task_id"]})
        assert await pending(client, permission) == ["pending"]
        await client.call("permission.respond", yes(permission))
        with anyio.fail_after(DEADLINE_S):
            while (await client.call("task.get", {"task_id": permission["task_id"]}))["task"]["state"] != "COMPLETED":
                await until(client, "task.state_changed")
        assert await pending(client, permission) == ["allowed"]
