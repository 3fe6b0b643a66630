"""The raw capture, from the socket and from the command line."""

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
CANARY = "canary-9c81f2d7"
DEADLINE_S = 60


@pytest.fixture
def host(make_host: Any) -> Any:
    return make_host()


def ran(host: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kandev_host", *arguments],
        env={**os.environ, "KANDEV_HOME": str(host.home)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def there(path: Path) -> bool:
    return path.exists()


async def an_agent(client: Client) -> tuple[str, str]:
    """One that has answered a prompt and ended; its task."""
    board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
    task = {"board_id": board, "title": "t", "description": ""}
    task_id = (await client.call("task.create", task))["task"]["id"]
    launch = {"task_id": task_id, "agent_type": "demo", "prompt": f"say {CANARY}", "preset": "contained"}
    agent_id = (await client.call("agent.launch", launch))["agent"]["id"]
    with anyio.fail_after(DEADLINE_S):
        async for told in client.notifications():
            if told.action == "acp.result":
                break
    await client.call("agent.stop", {"agent_id": agent_id})
    return agent_id, task_id


async def test_agent_log_raw_pages_all_that_went_over_the_pipes_of_an_ended_agent(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        agent_id, _ = await an_agent(client)
        small = await client.call("agent.capture", {"agent_id": agent_id, "limit_bytes": 1})
    done = await anyio.to_thread.run_sync(ran, host, "agent", "log", agent_id, "--raw")
    follow = await anyio.to_thread.run_sync(ran, host, "agent", "log", agent_id, "--raw", "--follow")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert follow.stdout == done.stdout
    assert len(small["lines"]) == 1
    assert lines[0] == json.loads(small["lines"][0])
    assert next(line["line"].get("method") for line in lines if line["dir"] == "in") == "initialize"
    assert any(CANARY in json.dumps(line["line"]) for line in lines if line["dir"] == "out")


async def test_captures_go_with_their_task_and_are_then_not_found(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        agent_id, task_id = await an_agent(client)
        folder = Path(host.home) / "captures" / task_id
        assert there(folder)
        await client.call("task.delete", {"task_id": task_id, "force": True})
        with pytest.raises(ClientError) as refused:
            await client.call("agent.capture", {"agent_id": agent_id})
    assert not there(folder)
    assert (refused.value.code, refused.value.details["kind"]) == ("NOT_FOUND", "agent")


async def test_what_a_dead_host_left_of_deleted_tasks_goes_at_the_next_start(host: Any) -> None:
    host.stop()
    left = Path(host.home) / "captures" / "0199aaaa-0000-7000-8000-000000000000"
    left.mkdir(parents=True)
    host.start()
    assert not there(left)


async def test_where_capture_is_off_nothing_is_kept_and_the_error_says_why(make_host: Any) -> None:
    host = make_host("[session]\ncapture = false\n")
    async with Client.connect(host.url, host.token) as client:
        agent_id, _ = await an_agent(client)
    done = await anyio.to_thread.run_sync(ran, host, "agent", "log", agent_id, "--raw")
    assert done.returncode == 1
    assert "capture = true" in done.stderr
    assert not there(Path(host.home) / "captures")
