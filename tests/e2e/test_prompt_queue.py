"""The prompts that wait for an agent, over the death of the host."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = pytest.mark.anyio

DEADLINE_S = 60


async def wait_for(client: Client, action: str, **fields: Any) -> dict[str, Any]:
    """The payload of the next such notification."""
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == action and all(message.payload.get(key) == fields[key] for key in fields):
                return dict(message.payload)
    raise AssertionError("the host hung up")


async def texts(client: Client, agent_id: str) -> list[str]:
    prompts = (await client.call("queue.list", {"agent_id": agent_id}))["prompts"]
    assert [prompt["position"] for prompt in prompts] == list(range(len(prompts)))
    return [prompt["prompt"][0]["text"] for prompt in prompts]


async def test_p8_queued_prompts_outlive_kill_9_in_order(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        board = (await client.call("board.create", {"name": "Work"}))["board"]
        payload = {"board_id": board["id"], "title": "Work", "description": ""}
        task = (await client.call("task.create", payload))["task"]
        launch = {"task_id": task["id"], "agent_type": "demo", "prompt": "sleep 600"}
        before = (await client.call("agent.launch", launch))["agent"]["id"]
        await wait_for(client, "acp.status", agent_id=before, activity="prompting")
        ids = [
            (await client.call("agent.prompt", {"agent_id": before, "prompt": f"say: {text}"}))["turn_id"]
            for text in ("one", "two", "three", "four")
        ]
        await client.call("queue.update", {"prompt_id": ids[3], "position": 0})
        await client.call("queue.remove", {"prompt_id": ids[1]})
        host.kill()
    host.start()
    async with Client.connect(host.url, host.token) as client:
        assert await texts(client, before) == ["say: four", "say: one", "say: three"]
        after = (await client.call("agent.resume", {"agent_id": before, "prompt": "say: five"}))["agent"]["id"]
        await client.subscribe(f"task:{task['id']}", after_seq=0)
        results = [await wait_for(client, "acp.result", agent_id=after) for _ in range(4)]
        assert [result["summary"] for result in results] == ["four", "one", "three", "five"]
        assert (await texts(client, before), await texts(client, after)) == ([], [])
