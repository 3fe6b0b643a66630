"""The main job, from the socket: an agent in a container works on a real repository."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from kandev_host.client import Client, ClientError

from ..e2e.conftest import HostProcess, repository  # noqa: F401
from .conftest import IMAGE, OF_AGENTS
from .dockerd import Dockerd

pytestmark = pytest.mark.anyio
DEADLINE_S = 100
STEPS = [
    {"text": "I write it"},
    {"write": {"path": "HELLO.md", "text": "hello from a container"}},
    {"permission": {"toolCall": {"toolCallId": "t1", "kind": "edit", "title": "Write"}}, "chosen": {}},
    {"usage": {"totalTokens": 3, "inputTokens": 1, "outputTokens": 2}},
]


def host_of(
    socket: str, folder: Path, extra: str = "", steps: Any = STEPS, image: str = IMAGE, pull: str = "never"
) -> HostProcess:
    """A host whose agents run in containers of this engine."""
    command = ["python3", "-I", "-S", "/opt/scripted_agent.py", json.dumps({"prompt": steps})]
    config = f"""
        [use]
        runtime = "docker"
        [runtime.docker]
        socket = "{socket}"
        pull = "{pull}"
        {extra}
        [agents.scripted]
        command = {json.dumps(command)}
        image = "{image}"
    """
    (folder / "settings.toml").write_text(config)
    return HostProcess(folder / "data", {"KANDEV_CONFIG": str(folder / "settings.toml")})


@pytest.fixture
def make_host(dockerd: Any, sdk: docker.APIClient, tmp_path: Path) -> Iterator[Callable[..., HostProcess]]:
    hosts: list[HostProcess] = []

    def made(extra: str = "", steps: Any = STEPS) -> HostProcess:
        hosts.append(host_of(dockerd.socket, tmp_path, extra, steps))
        hosts[-1].start()
        return hosts[-1]

    yield made
    for host in hosts:
        host.stop()


async def start(client: Client, **fields: Any) -> tuple[str, str]:
    """The ids of a task and of its agent."""
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    payload = {"board_id": board["id"], "title": "Write", "description": "", "agent_type": "scripted", **fields}
    task = (await client.call("task.create", payload))["task"]
    agent = (await client.call("orchestrator.start", {"task_id": task["id"]}))["agent"]
    return task["id"], agent["id"]


async def until(client: Client, *actions: str) -> Any:
    """The payload of the next notification with one of these names."""
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action in (*actions, "acp.error"):
                assert message.action in actions, message.payload
                return message.payload
    raise AssertionError(f"the socket closed before {actions}")


async def test_a_whole_turn_in_a_container_ends_in_a_completed_task_with_a_diff(
    make_host: Any,
    sdk: docker.APIClient,
    repository: Path,  # noqa: F811
) -> None:
    host = make_host()
    async with Client.connect(host.url, host.token) as client:
        task_id, agent_id = await start(client, repository_url=str(repository))
        permission = (await until(client, "permission.requested"))["permission"]
        [container] = sdk.containers(filters=OF_AGENTS)
        option = next(item["optionId"] for item in permission["options"] if item["kind"] == "allow_once")
        await client.call("permission.respond", {"permission_id": permission["id"], "option_id": option})
        result = await until(client, "acp.result")
        await until(client, "task.state_changed")
        diff = await client.call("workspace.diff", {"task_id": task_id})
        status = await client.call("agent.status", {"agent_id": agent_id})
    assert result["stop_reason"] == "end_turn"
    assert container["Labels"]["kandev.label.agent_id"] == agent_id
    found_by = {name: status["agent"][name] for name in ("container_id", "container_name", "image_name")}
    name = container["Names"][0].removeprefix("/")
    assert found_by == {"container_id": container["Id"], "container_name": name, "image_name": IMAGE}
    assert "hello from a container" in diff["diff"]
    assert status["agent"]["runtime"] == "docker"
    assert "hello" not in subprocess.run(["ls", repository], check=True, capture_output=True, text=True).stdout.split()


async def test_p9_a_killed_host_leaves_no_container_and_its_run_a_named_end(
    make_host: Any, sdk: docker.APIClient
) -> None:
    host = make_host('after_host_death = "stop"')
    async with Client.connect(host.url, host.token) as client:
        _, agent_id = await start(client)
        await until(client, "permission.requested")
    assert len(sdk.containers(filters=OF_AGENTS)) == 1
    await anyio.to_thread.run_sync(host.kill)
    await anyio.to_thread.run_sync(host.start)
    async with Client.connect(host.url, host.token) as client:
        status = (await client.call("agent.status", {"agent_id": agent_id}))["agent"]
        assert (status["status"], status["failure"]) == ("FAILED", "host_died")
    assert sdk.containers(all=True, filters=OF_AGENTS) == []


async def test_p13_an_engine_that_ends_under_an_agent_leaves_the_host_unharmed(
    make_host: Any, dockerd: Dockerd, sdk: docker.APIClient
) -> None:
    """Nor what runs elsewhere: an agent in a jail goes on with its turn meanwhile."""
    host = make_host("[runtime.bwrap]")
    async with (
        Client.connect(host.url, host.token) as client,
        Client.connect(host.url, host.token) as another,
    ):
        board_id = (await another.call("board.create", {"name": "Beside it"}))["board"]["id"]
        task = {"board_id": board_id, "title": "t", "description": ""}
        beside = (await another.call("task.create", task))["task"]["id"]
        launch = {"task_id": beside, "agent_type": "demo", "runtime": "bwrap", "prompt": "write HELLO.md: hello"}
        await another.call("agent.launch", launch)
        asked = (await until(another, "permission.requested"))["permission"]
        _, agent_id = await start(client)
        await until(client, "permission.requested")
        await anyio.to_thread.run_sync(dockerd.stop)
        try:
            with anyio.fail_after(DEADLINE_S):
                status = (await client.call("agent.status", {"agent_id": agent_id}))["agent"]
                while status["status"] != "FAILED":
                    await anyio.sleep(0.1)
                    status = (await client.call("agent.status", {"agent_id": agent_id}))["agent"]
            assert "engine" in status["error_message"]
            with pytest.raises(ClientError, match="no Docker engine"):
                await start(client)
            option = next(item["optionId"] for item in asked["options"] if item["kind"] == "allow_once")
            await another.call("permission.respond", {"permission_id": asked["id"], "option_id": option})
            assert (await until(another, "acp.result"))["stop_reason"] == "end_turn"
            runtimes = {each["name"]: each["availability"] for each in (await client.call("host.info"))["runtimes"]}
            assert (runtimes["docker"]["ok"], runtimes["bwrap"]["ok"]) == (False, True)
        finally:
            await anyio.to_thread.run_sync(dockerd.start)
    async with Client.connect(host.url, host.token) as client:
        _, agent_id = await start(client)
        await until(client, "permission.requested")
        await client.call("agent.stop", {"agent_id": agent_id})
