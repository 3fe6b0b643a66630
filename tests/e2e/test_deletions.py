"""What is deleted with force while the queue starts agents for it is gone, and nothing of it starts any more."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
# It asks before it runs anything, so the agents live until they are stopped.
WORK = "run: printf done > done.txt"
CONFIG = "[orchestrator]\nauto_start = true\nmax_agents = 2\n"


async def test_a_board_goes_with_its_agents_while_its_queue_waits_for_room(make_host: Any) -> None:
    host = make_host(CONFIG, KANDEV_ORCHESTRATOR__AUTO_START="true")
    async with Client.connect(host.url, host.token) as client:
        with anyio.fail_after(DEADLINE_S):
            board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
            for number in range(6):
                task = {"board_id": board, "title": f"t{number}", "description": WORK, "agent_type": "demo"}
                await client.call("task.create", task)
            while (await client.call("orchestrator.status"))["capacity"]["used"] < 2:
                await anyio.sleep(0.05)  # far from the rate limit
            reply = await client.call("board.delete", {"board_id": board, "force": True})
            assert (reply["removed"]["tasks"], reply["removed"]["columns"]) == (6, 4)
            assert reply["removed"]["stopped"] == 2
            assert (await client.call("orchestrator.queue"))["entries"] == []
            assert (await client.call("agent.list"))["agents"] == []
            assert (await client.call("orchestrator.status"))["capacity"]["used"] == 0
    assert "Traceback" not in host.log()
