"""The queue as a front end sees it: over the socket of a real host, through stops and kills."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = pytest.mark.anyio

WAIT_S = 60.0
AUTOMATIC = {"KANDEV_ORCHESTRATOR__AUTO_START": "true"}


@pytest.fixture
def host(host: Any) -> Any:
    """One that starts tasks by itself."""
    host.stop()
    host.env.update(AUTOMATIC)
    host.start()
    return host


async def new_task(client: Client, prompt: str, **fields: Any) -> dict[str, Any]:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    asked = {"board_id": board["id"], "title": prompt, "description": prompt, "agent_type": "demo", **fields}
    task: dict[str, Any] = (await client.call("task.create", asked))["task"]
    return task


async def became(client: Client, task: dict[str, Any], state: str) -> list[str]:
    """The notifications until the task is in this state."""
    seen = []
    with anyio.fail_after(WAIT_S):
        async for message in client.notifications():
            seen.append(message.action)
            if message.action == "task.state_changed":
                told = message.payload["task"]
                if (told["id"], told["state"]) == (task["id"], state):
                    return seen
    raise AssertionError(f"the socket closed before {state}")


async def prompting(client: Client, attempt: int) -> dict[str, Any]:
    with anyio.fail_after(WAIT_S):
        async for message in client.notifications():
            agent: dict[str, Any] = message.payload.get("agent", {})
            if agent.get("activity") == "prompting" and agent["attempt"] == attempt:
                return agent
    raise AssertionError("the socket closed before the agent worked")


async def test_a_task_runs_from_its_creation_to_its_end_by_itself(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, "say: hello")
        seen = await became(client, task, "COMPLETED")
    assert seen.count("orchestrator.updated") == 3
    assert {"task.state_changed", "agent.updated", "acp.result"} <= {*seen}


async def test_p8_p10_a_run_that_a_graceful_stop_ended_goes_on_with_the_next_start(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, "sleep 600")
        first = await prompting(client, 1)
    assert host.stop() == 0
    host.start()
    assert not any(host.recovered.values())
    async with Client.connect(host.url, host.token) as client:
        await client.subscribe(f"task:{task['id']}", after_seq=0)
        with anyio.fail_after(WAIT_S):
            while (await prompting(client, 1))["id"] == first["id"]:
                pass
        runs = (await client.call("agent.list", {"task_id": task["id"]}))["agents"]
    assert [run["status"] for run in runs] == ["RUNNING", "STOPPED"]


async def test_p8_p9_a_run_that_a_kill_ended_is_tried_again_once(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, "sleep 600")
        first = await prompting(client, 1)
        host.kill()
    host.start()
    assert host.recovered["tasks_requeued"] == [task["id"]]
    async with Client.connect(host.url, host.token) as client:
        await client.subscribe(f"task:{task['id']}", after_seq=0)
        with anyio.fail_after(WAIT_S):
            while (await prompting(client, 1))["id"] == first["id"]:
                pass
        runs = (await client.call("agent.list", {"task_id": task["id"]}))["agents"]
        status = await client.call("orchestrator.status", {})
    assert [(run["status"], run["attempt"]) for run in runs] == [("RUNNING", 1), ("FAILED", 1)]
    assert status["recovery"]["tasks_requeued"] == [task["id"]]


async def test_the_queue_is_paused_shown_triggered_and_resumed(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        assert (await client.call("orchestrator.pause", {}))["paused"]
        task = await new_task(client, "say: hello", priority=3)
        reply = await client.call("orchestrator.trigger", {"task_id": task["id"]})
        (entry,) = (await client.call("orchestrator.queue", {}))["entries"]
        assert (reply["agent"], reply["entry"]) == (None, entry)
        assert (entry["position"], entry["priority"], entry["waiting_for"]["kind"]) == (0, 3, "paused")
        assert not (await client.call("orchestrator.resume", {}))["paused"]
        await became(client, task, "COMPLETED")
        assert (await client.call("orchestrator.queue", {}))["entries"] == []
