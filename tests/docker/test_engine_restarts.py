"""An engine that is ended and started again and again under a host with agents in its containers."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from kandev_host.client import Client

from ..e2e.conftest import HostProcess
from .conftest import OF_AGENTS
from .dockerd import Dockerd
from .test_turn import host_of

pytestmark = pytest.mark.anyio
DEADLINE_S = 120
ROUNDS = int(os.environ.get("KANDEV_TEST_RESTARTS", "3"))
STEPS = [{"text": "begun"}, {"sleep_s": 3600}]
QUEUE = {"ATTEMPTS": "1000", "BACKOFF_S": "0.2", "BACKOFF_LIMIT_S": "1"}


class Follower:
    """A socket that follows everything from the first event on."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.seen: list[Any] = []

    async def follow(self) -> None:
        await self._client.subscribe("*", after_seq=0)
        async for notice in self._client.notifications():
            if notice.seq is not None:
                self.seen.append(notice)

    async def until(self, holds: Callable[[Any], bool]) -> None:
        """Such an event has come, or comes."""
        with anyio.fail_after(DEADLINE_S):
            while not any(holds(notice) for notice in self.seen):
                await anyio.sleep(0.05)


def begun(agent_id: str) -> Callable[[Any], bool]:
    return lambda notice: (
        notice.action == "acp.log" and notice.payload["message"] == "begun" and notice.payload["agent_id"] == agent_id
    )


async def agents_of(client: Client, task_id: str) -> list[dict[str, Any]]:
    """Newest first."""
    return list((await client.call("agent.list", {"task_id": task_id, "limit": 500}))["agents"])


async def until_working(client: Client, task_id: str, after: set[str]) -> str:
    """The run of a task that is none of those before, once it runs."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            newest = (await agents_of(client, task_id))[0]
            if newest["id"] not in after and newest["status"] == "RUNNING":
                return str(newest["id"])
            await anyio.sleep(0.1)


async def until_failed(client: Client, *agents: str) -> None:
    """Each has ended, and it is known how."""
    for agent_id in agents:
        with anyio.fail_after(DEADLINE_S):
            while (agent := (await client.call("agent.status", {"agent_id": agent_id}))["agent"])["stopped_at"] is None:
                await anyio.sleep(0.1)
        assert (agent["status"], bool(agent["failure"]), bool(agent["error_message"])) == ("FAILED", True, True), agent


async def engine_ends(dockerd: Dockerd, count: int, given_up: Callable[[], Awaitable[None]]) -> None:
    """In peace and by force; half of the time it is away until the host has given up what ran in it."""
    await anyio.to_thread.run_sync(dockerd.stop, signal.SIGTERM if count % 2 else signal.SIGKILL)
    try:
        if count % 4 in (0, 3):
            await given_up()
    finally:
        await anyio.to_thread.run_sync(dockerd.start)


@pytest.mark.timeout(180 + 60 * ROUNDS)
async def test_p13_an_engine_that_comes_and_goes_under_a_host_loses_no_run_and_no_event(
    dockerd: Dockerd, sdk: docker.APIClient, tmp_path: Path
) -> None:
    """One agent of the queue, which is tried again, and one that somebody started, which is not."""
    host: HostProcess = host_of(dockerd.socket, tmp_path, steps=STEPS)
    host.env |= {f"KANDEV_ORCHESTRATOR__{name}": value for name, value in QUEUE.items()}
    await anyio.to_thread.run_sync(host.start)
    try:
        async with (
            Client.connect(host.url, host.token) as client,
            Client.connect(host.url, host.token) as following,
            anyio.create_task_group() as tasks,
        ):
            follower = Follower(following)
            tasks.start_soon(follower.follow)
            board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
            made = [
                (await client.call("task.create", {"board_id": board, "title": title, "description": ""}))["task"]["id"]
                for title in ("queued", "by hand")
            ]
            queued, by_hand = made
            await client.call("orchestrator.start", {"task_id": queued, "agent_type": "scripted"})
            before: set[str] = set()
            for count in range(ROUNDS):
                launch = {"task_id": by_hand, "agent_type": "scripted", "prompt": "work"}
                hand = (await client.call("agent.launch", launch))["agent"]["id"]
                run = await until_working(client, queued, before)
                await follower.until(begun(run))
                await follower.until(begun(hand))
                await engine_ends(dockerd, count, partial(until_failed, client, run, hand))
                await until_failed(client, run, hand)
                before |= {agent["id"] for agent in await agents_of(client, queued) if agent["status"] == "FAILED"}
            run = await until_working(client, queued, before)
            await follower.until(begun(run))
            [container] = sdk.containers(filters=OF_AGENTS)
            assert container["Labels"]["kandev.label.agent_id"] == run
            await client.call("agent.stop", {"agent_id": run}, DEADLINE_S)
            runs = [*await agents_of(client, queued), *await agents_of(client, by_hand)]
            states = {agent["id"]: agent["status"] for agent in runs}
            assert states.pop(run) == "STOPPED"
            assert set(states.values()) == {"FAILED"}
            assert all(agent["error_message"] for agent in runs if agent["id"] != run)
            with anyio.fail_after(DEADLINE_S):
                while await anyio.to_thread.run_sync(lambda: sdk.containers(all=True, filters=OF_AGENTS)):
                    await anyio.sleep(0.1)
            head = (await client.call("board.create", {"name": "The end"}))["board"]["id"]
            await follower.until(lambda n: n.action == "board.created" and n.payload["board"]["id"] == head)
            seqs = [notice.seq for notice in follower.seen]
            assert seqs == list(range(1, len(seqs) + 1))
            tasks.cancel_scope.cancel()
    finally:
        await anyio.to_thread.run_sync(host.stop)
