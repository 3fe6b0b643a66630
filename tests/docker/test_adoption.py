"""A host is killed under an agent in a container: the next one goes on with it, and nothing is lost or said twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from kandev_host.client import Client

from ..e2e.conftest import HostProcess
from .conftest import OF_AGENTS
from .dockerd import Dockerd

pytestmark = pytest.mark.anyio
DEADLINE_S = 90
ASKED = {"permission": {"toolCall": {"toolCallId": "t1", "kind": "edit", "title": "Write"}}, "chosen": {}}
STREAM = [{"text": "word {n} ", "repeat": 60, "delay_s": 0.02}]
TURN = [
    {"thought": "Let me see. "},
    {"text": "before {n}, ", "repeat": 20, "delay_s": 0.01},
    {"tool": {"toolCallId": "t1", "title": "Write", "kind": "edit", "status": "pending"}},
    ASKED,
    {"tool_update": {"toolCallId": "t1", "status": "completed"}},
    {"text": "after {n}, ", "repeat": 20, "delay_s": 0.01},
    {"usage": {"totalTokens": 7, "inputTokens": 3, "outputTokens": 4}},
]


class World:
    """A host whose agents run in containers, and the client of a person."""

    def __init__(self, host: HostProcess, sdk: docker.APIClient) -> None:
        self.host = host
        self.sdk = sdk
        self.task_id = self.agent_id = ""

    def client(self) -> Any:
        return Client.connect(self.host.url, self.host.token)

    async def launch(self, client: Client, prompt: list[dict[str, Any]] | None) -> None:
        board = (await client.call("board.create", {"name": "Work"}))["board"]
        payload = {"board_id": board["id"], "title": "Write", "description": "", "agent_type": "scripted"}
        self.task_id = (await client.call("task.create", payload))["task"]["id"]
        asked: dict[str, Any] = {"task_id": self.task_id, "agent_type": "scripted"}
        self.agent_id = (await client.call("agent.launch", asked))["agent"]["id"]
        if prompt is not None:
            await self.prompt(client, prompt)

    async def prompt(self, client: Client, steps: list[dict[str, Any]]) -> str:
        sent = {"agent_id": self.agent_id, "prompt": json.dumps(steps)}
        turn_id: str = (await client.call("agent.prompt", sent))["turn_id"]
        return turn_id

    async def agent(self, client: Client) -> dict[str, Any]:
        found: dict[str, Any] = (await client.call("agent.status", {"agent_id": self.agent_id}))["agent"]
        return found

    async def until(self, client: Client, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        with anyio.fail_after(DEADLINE_S):
            while not holds(agent := await self.agent(client)):
                await anyio.sleep(0.05)
        return agent

    async def running(self, client: Client, activity: str = "idle") -> dict[str, Any]:
        return await self.until(client, lambda agent: (agent["status"], agent["activity"]) == ("RUNNING", activity))

    def container(self) -> str:
        (container,) = self.sdk.containers(filters=OF_AGENTS)
        return str(container["Id"])

    async def restart(self) -> None:
        await anyio.to_thread.run_sync(self.host.kill)
        await anyio.to_thread.run_sync(self.host.start)

    async def gone(self) -> None:
        """No container is left: one that was adopted is removed behind the end of its run."""
        with anyio.fail_after(DEADLINE_S):
            while await anyio.to_thread.run_sync(lambda: self.sdk.containers(all=True, filters=OF_AGENTS)):
                await anyio.sleep(0.05)

    async def told(self, client: Client) -> list[Any]:
        """All that was ever told of this agent, in order."""
        return [notice async for notice in client.history(f"agent:{self.agent_id}")]


def words(told: list[Any], kind: str = "agent_message_chunk") -> str:
    return "".join(
        notice.payload["message"]
        for notice in told
        if notice.action == "acp.log" and notice.payload["metadata"].get("type") == kind
    )


def count(told: list[Any], action: str) -> int:
    return sum(notice.action == action for notice in told)


async def seen(client: Client, enough: Callable[[Any], bool]) -> Any:
    """The first notification that is enough."""
    with anyio.fail_after(DEADLINE_S):
        async for notice in client.notifications():
            if enough(notice):
                return notice
    raise AssertionError("the socket closed")


def said(text: str) -> Callable[[Any], bool]:
    return lambda notice: notice.action == "acp.log" and text in notice.payload["message"]


def is_(action: str) -> Callable[[Any], bool]:
    return lambda notice: notice.action == action


@pytest.fixture
def make_world(dockerd: Dockerd, sdk: docker.APIClient, tmp_path: Path) -> Iterator[Callable[..., World]]:
    hosts: list[HostProcess] = []

    def made(runtime: str = "", script: Any = None) -> World:
        command = ["python3", "-I", "-S", "/opt/scripted_agent.py", json.dumps(script or {})]
        config = f"""
            [use]
            runtime = "docker"
            [runtime.docker]
            socket = "{dockerd.socket}"
            pull = "never"
            {runtime}
            [agents.scripted]
            command = {json.dumps(command)}
        """
        (tmp_path / "settings.toml").write_text(config)
        host = HostProcess(tmp_path / "data", {"KANDEV_CONFIG": str(tmp_path / "settings.toml")})
        hosts.append(host)
        host.start()
        return World(host, sdk)

    yield made
    for host in hosts:
        host.stop()


async def allow(client: Client, permission: dict[str, Any]) -> None:
    option = next(each["optionId"] for each in permission["options"] if each["kind"] == "allow_once")
    await client.call("permission.respond", {"permission_id": permission["id"], "option_id": option})


BEFORE = "".join(f"before {n}, " for n in range(20))
AFTER = "".join(f"after {n}, " for n in range(20))
POINTS: list[Callable[[Any], bool]] = [
    said("Let me see"),
    said("before 7,"),
    is_("permission.requested"),
    is_("permission.resolved"),
    said("after 9,"),
    is_("acp.result"),
]


async def test_p1_p9_a_turn_goes_on_over_kills_of_its_host_and_each_word_of_it_is_told_once(make_world: Any) -> None:
    """Killed again and again within one turn, each time as soon as something was told."""
    world = make_world()
    async with world.client() as client:
        await world.launch(client, None)
        await world.running(client)
        await client.subscribe(f"agent:{world.agent_id}")
        turn_id = await world.prompt(client, TURN)
        await seen(client, POINTS[0])
        container, head = world.container(), client.resume_seq
    for point in POINTS[1:]:
        await world.restart()
        async with world.client() as client:
            assert world.container() == container
            assert (await world.agent(client))["status"] == "RUNNING"
            await client.subscribe(f"agent:{world.agent_id}", after_seq=head)
            if point is POINTS[3]:
                asked = {"agent_id": world.agent_id, "state": "pending"}
                (permission,) = (await client.call("permission.list", asked))["permissions"]
                await allow(client, permission)
            await seen(client, point)
            head = client.resume_seq
    await world.restart()
    async with world.client() as client:
        assert world.container() == container
        await world.running(client)
        told = await world.told(client)
        assert words(told) == f"{BEFORE}permission: once{AFTER}"
        assert words(told, "agent_thought_chunk") == "Let me see. "
        assert [count(told, f"permission.{each}") for each in ("requested", "resolved")] == [1, 1]
        assert count(told, "acp.error") == 0
        (result,) = [notice for notice in told if notice.action == "acp.result"]
        assert (result.payload["turn_id"], result.payload["status"]) == (turn_id, "completed")
        assert result.payload["usage"]["total_tokens"] == 7
        await world.prompt(client, [{"text": "and on"}])
        await client.subscribe(f"agent:{world.agent_id}")
        await seen(client, is_("acp.result"))
        await client.call("agent.stop", {"agent_id": world.agent_id})
    await world.gone()


async def test_p9_what_an_agent_says_while_its_host_is_dead_is_told_by_the_next_one(make_world: Any) -> None:
    world = make_world()
    async with world.client() as client:
        await world.launch(client, None)
        await world.running(client)
        await client.subscribe(f"agent:{world.agent_id}")
        await world.prompt(client, [*STREAM, {"write": {"path": "done", "text": ""}}])
        await seen(client, said("word 5 "))
    await anyio.to_thread.run_sync(world.host.kill)
    container = world.container()
    with anyio.fail_after(DEADLINE_S):
        while world.sdk.exec_start(world.sdk.exec_create(container, ["ls", "/workspace"])["Id"]) != b"done\n":
            await anyio.sleep(0.1)
    await anyio.to_thread.run_sync(world.host.start)
    assert world.host.recovered["agents_adopted"] == [world.agent_id]
    async with world.client() as client:
        await world.running(client)
        told = await world.told(client)
        assert words(told) == "".join(f"word {n} " for n in range(60))
        assert count(told, "acp.result") == 1
    assert world.container() == container


async def test_p9_prompts_that_wait_and_a_cancelled_turn_outlive_the_host(make_world: Any) -> None:
    world = make_world()
    async with world.client() as client:
        await world.launch(client, None)
        await world.running(client)
        await client.subscribe(f"agent:{world.agent_id}")
        await world.prompt(client, [{"text": "first"}, {"sleep_s": 600}])
        await world.prompt(client, [{"text": "second"}])
        await seen(client, said("first"))
    container = world.container()
    await world.restart()
    async with world.client() as client:
        await client.subscribe(f"agent:{world.agent_id}")
        await client.call("agent.cancel", {"agent_id": world.agent_id})
        result = await seen(client, is_("acp.result"))
        assert result.payload["status"] == "cancelled"
        result = await seen(client, is_("acp.result"))
        assert (result.payload["status"], result.payload["summary"]) == ("completed", "second")
        assert words(await world.told(client)) == "firstsecond"
    assert world.container() == container


async def test_p8_p9_a_task_of_the_queue_goes_on_in_the_same_run(make_world: Any) -> None:
    steps = [{"text": "begun"}, {"until_file": "/workspace/go"}, {"text": " and done"}]
    world = make_world(script={"prompt": steps})
    async with world.client() as client:
        board = (await client.call("board.create", {"name": "Work"}))["board"]
        payload = {"board_id": board["id"], "title": "Write", "description": "", "agent_type": "scripted"}
        task_id = (await client.call("task.create", payload))["task"]["id"]
        await client.subscribe(f"task:{task_id}")
        world.agent_id = (await client.call("orchestrator.start", {"task_id": task_id}))["agent"]["id"]
        await seen(client, said("begun"))
    container = world.container()
    await world.restart()
    world.sdk.exec_start(world.sdk.exec_create(container, ["touch", "/workspace/go"])["Id"])
    async with world.client() as client:
        with anyio.fail_after(DEADLINE_S):
            while (task := (await client.call("task.get", {"task_id": task_id}))["task"])["state"] == "IN_PROGRESS":
                await anyio.sleep(0.05)
        assert (task["state"], task["assigned_agent_id"]) == ("COMPLETED", world.agent_id)
        assert words(await world.told(client)) == "begun and done"
    await world.gone()


@pytest.mark.parametrize("how", ["stop", "killed", "changed"])
async def test_p4_p9_what_is_not_gone_on_with_has_a_named_end_and_leaves_nothing(make_world: Any, how: str) -> None:
    """By the settings, as they were or are now, or since its container ended while the host was dead."""
    world = make_world('after_host_death = "stop"' if how == "stop" else "")
    async with world.client() as client:
        await world.launch(client, None)
        await world.running(client)
        await client.subscribe(f"agent:{world.agent_id}")
        await world.prompt(client, [{"text": "begun"}, {"sleep_s": 600}])
        await seen(client, said("begun"))
    await anyio.to_thread.run_sync(world.host.kill)
    if how == "killed":
        world.sdk.kill(world.container())
    if how == "changed":
        world.host.env["KANDEV_RUNTIME__DOCKER__AFTER_HOST_DEATH"] = "stop"
    await anyio.to_thread.run_sync(world.host.start)
    assert world.sdk.containers(all=True, filters=OF_AGENTS) == []
    assert world.host.recovered["agents_adopted"] == []
    async with world.client() as client:
        agent = await world.agent(client)
        assert (agent["status"], agent["failure"]) == ("FAILED", "host_died")
        assert ("not gone on with" in agent["error_message"]) == (how == "changed")
        assert words(await world.told(client)) == "begun"


async def test_p8_p9_a_prompt_of_which_nobody_knows_whether_it_was_sent_is_not_sent_again(make_world: Any) -> None:
    """The host is killed as soon as the turn has begun: the agent has the prompt, or the run ends and says why."""
    world = make_world()
    async with world.client() as client:
        await world.launch(client, None)
        await world.running(client)
        await client.subscribe(f"agent:{world.agent_id}")
        await world.prompt(client, [{"text": "once"}])
        await seen(client, lambda notice: notice.payload.get("activity") == "prompting")
    await world.restart()
    async with world.client() as client:
        agent = await world.until(
            client, lambda agent: (agent["status"], agent["activity"]) != ("RUNNING", "prompting")
        )
        told = await world.told(client)
        if agent["status"] == "RUNNING":
            assert (words(told), count(told, "acp.result")) == ("once", 1)
        else:
            assert "nobody knows whether the agent has it" in agent["error_message"]
            assert words(told) in ("", "once")
            assert world.sdk.containers(all=True, filters=OF_AGENTS) == []


async def test_p10_a_host_that_is_stopped_takes_its_containers_with_it(make_world: Any) -> None:
    world = make_world()
    async with world.client() as client:
        await world.launch(client, None)
        await world.running(client)
    await anyio.to_thread.run_sync(world.host.stop)
    assert world.sdk.containers(all=True, filters=OF_AGENTS) == []
