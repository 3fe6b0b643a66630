"""agent.type_update: what a user says of an agent type holds from then on, and after a restart."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio

DEADLINE_S = 30  # well below the minute after which the queue looks at everything again


async def demo(client: Client) -> dict[str, Any]:
    types = (await client.call("agent.types"))["agent_types"]
    return next(item for item in types if item["name"] == "demo")


async def test_a_disabled_agent_stays_disabled_over_a_restart(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        await client.call("agent.type_update", {"name": "demo", "enabled": False})
    assert host.stop() == 0
    host.start()
    async with Client.connect(host.url, host.token) as client:
        found = await demo(client)
        assert (found["enabled"], found["availability"]["fix"]) == (False, "kandev-host agent enable demo")
        board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
        task = {"board_id": board, "title": "t", "description": "", "agent_type": "demo"}
        task_id = (await client.call("task.create", task))["task"]["id"]
        with pytest.raises(ClientError) as caught:
            await client.call("agent.launch", {"task_id": task_id})
        assert caught.value.code == "UNAVAILABLE"


async def test_a_queued_task_starts_once_its_agent_is_enabled(make_host: Any) -> None:
    host = make_host(KANDEV_ORCHESTRATOR__AUTO_START="true")
    async with Client.connect(host.url, host.token) as client:
        await client.call("agent.type_update", {"name": "demo", "enabled": False})
        await client.subscribe("*")
        board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
        task = {"board_id": board, "title": "t", "description": "say: hello", "agent_type": "demo"}
        with anyio.fail_after(DEADLINE_S):
            await client.call("task.create", task)
            while not (entries := (await client.call("orchestrator.queue"))["entries"]):
                await anyio.sleep(0.05)  # far from the rate limit
            assert entries[0]["waiting_for"]["kind"] == "agent_unavailable"
            await client.call("agent.type_update", {"name": "demo", "enabled": True})
            async for notification in client.notifications():
                if notification.action == "task.state_changed":
                    assert notification.payload["new_state"] == "IN_PROGRESS"
                    break


@pytest.mark.parametrize("field", ["command", "path", "env", "environment_vars", "network", "allow", "mounts", "files"])
async def test_nothing_that_runs_or_is_reached_can_be_set(one_host: Any, field: str) -> None:
    """Reliability: writing configuration is executing code."""
    async with Client.connect(one_host.url, one_host.token) as client:
        with pytest.raises(ClientError) as caught:
            await client.call("agent.type_update", {"name": "demo", field: "x"})
    assert (caught.value.code, caught.value.details["field"]) == ("VALIDATION_ERROR", field)
