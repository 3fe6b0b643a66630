"""acp_ingest: a flooding agent in a jail, journalled and streamed to one client, against the SDK only reading it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, host
from kandev_host.client import Client

UPDATES = 50_000
FLOOD_AGENT = Path(__file__).parent / "flood_agent.py"
CONFIG = f'[agents.flood]\ncommand = ["{FLOOD_AGENT}"]\n'


class Counting:
    """An SDK client that counts updates and does nothing else."""

    def __init__(self) -> None:
        self.seen = 0

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.seen += 1

    def on_connect(self, _connection: Any) -> None:
        pass


async def sdk_updates_per_s() -> float:
    import acp

    client = Counting()
    async with acp.spawn_agent_process(client, str(FLOOD_AGENT)) as (connection, _process):  # type: ignore[arg-type]
        await connection.initialize(protocol_version=1)
        session = await connection.new_session(cwd="/", mcp_servers=[])
        start = time.perf_counter()
        await connection.prompt(session_id=session.session_id, prompt=[acp.text_block(str(UPDATES))])
        assert client.seen == UPDATES
        return UPDATES / (time.perf_counter() - start)


@asynccontextmanager
async def flooding(server: Server) -> AsyncIterator[tuple[Client, str]]:
    async with Client.connect(server.url, server.token) as client:
        board = (await client.call("board.create", {"name": "bench"}))["board"]["id"]
        task = {"board_id": board, "title": "flood", "description": "", "agent_type": "flood"}
        task_id = (await client.call("task.create", task))["task"]["id"]
        agent = (await client.call("agent.launch", {"task_id": task_id}))["agent"]["id"]
        yield client, agent
        await client.call("agent.stop", {"agent_id": agent, "force": True})


async def host_updates_per_s(server: Server) -> float:
    """From the prompt until the client has decoded the last durable update and the end of the turn."""
    async with flooding(server) as (client, agent):
        start = time.perf_counter()
        await client.call("agent.prompt", {"agent_id": agent, "prompt": str(UPDATES)})
        seen = 0
        async for message in client.notifications():
            seen += message["action"] == "acp.log"
            if message["action"] == "acp.result":
                break
        assert seen >= UPDATES, seen
        return UPDATES / (time.perf_counter() - start)


@contextmanager
def opened() -> Iterator[tuple[Measure, Measure]]:
    limits = {
        "KANDEV_GATEWAY__OUTBOUND_LIMIT_MESSAGES": "1000000",
        "KANDEV_GATEWAY__OUTBOUND_LIMIT_BYTES": str(1 << 30),
    }
    with host(CONFIG, **limits) as server:
        yield (lambda: asyncio.run(host_updates_per_s(server)), lambda: asyncio.run(sdk_updates_per_s()))


ROWS = (
    Row(
        "acp_ingest",
        f"{UPDATES} updates, jail to journal to socket client, against the official SDK reading them",
        "updates/s",
        "≥ 2",
        opened,
    ),
)
