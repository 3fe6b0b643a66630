"""`agent attach` outlives its host."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = pytest.mark.anyio
DEADLINE_S = 60


async def test_who_is_attached_waits_for_a_host_that_was_killed_and_learns_how_the_agent_ended(host: Any) -> None:
    async with Client.connect(host.url, host.token) as client:
        board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
        task = {"board_id": board, "title": "t", "description": ""}
        task_id = (await client.call("task.create", task))["task"]["id"]
        launched = await client.call("agent.launch", {"task_id": task_id, "agent_type": "demo"})
    command = [sys.executable, "-m", "kandev_host", "agent", "attach", launched["agent"]["id"]]
    env = {**os.environ, "KANDEV_HOME": str(host.home), "COLUMNS": "300"}
    pipe = subprocess.PIPE
    async with await anyio.open_process(command, env=env, stdin=pipe, stdout=pipe, stderr=None) as process:
        assert process.stdout is not None
        shown = b""
        with anyio.fail_after(DEADLINE_S):
            while b"Attached to agent" not in shown:
                shown += await process.stdout.receive()
            host.kill()
            while b"Waiting for the host" not in shown:
                shown += await process.stdout.receive()
            host.start()
            async for more in process.stdout:
                shown += more
            assert await process.wait() == 0
    assert b"Connected again." in shown
    assert b"The agent has ended" in shown
