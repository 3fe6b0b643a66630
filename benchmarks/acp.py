"""acp_ingest: a flooding agent in a jail, journalled and streamed to one client, against the SDK only reading it.

Our side is the whole way: pipe out of the jail, decoded, made into events, committed with synchronous=FULL, published,
and received, every frame parsed and its `seq` checked, by one WebSocket client outside the host's process: see
counting.py. The floor is a process of the official SDK with a client that only counts; its agent runs without a jail.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import counting
from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, host
from kandev_host.client import Client

UPDATES = 50_000
FLOOD_AGENT = Path(__file__).parent / "flood_agent.py"
CONFIG = f'[orchestrator]\nauto_start = false\n[agents.flood]\ncommand = ["{FLOOD_AGENT}"]\n'
# By default a client that falls 1,000 messages behind is cut, and one that counts a flood does.
LIMITS = {
    "KANDEV_GATEWAY__OUTBOUND_LIMIT_MESSAGES": "1000000",
    "KANDEV_GATEWAY__OUTBOUND_LIMIT_BYTES": str(1 << 30),
}


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


async def launch(client: Client, count: int = 1) -> list[str]:
    """Agents that wait for their first prompt."""
    board = (await client.call("board.create", {"name": "bench"}))["board"]["id"]
    agents = []
    for _ in range(count):
        task = {"board_id": board, "title": "flood", "description": ""}
        task_id = (await client.call("task.create", task))["task"]["id"]
        agents.append((await client.call("agent.launch", {"task_id": task_id, "agent_type": "flood"}))["agent"]["id"])
    await client.subscribe(f"board:{board}", after_seq=0)
    running = 0
    async for told in client.notifications():
        running += told.action == "acp.status" and told.payload["status"] == "RUNNING"
        if running == count:
            break
    await client.call("events.unsubscribe", {})
    return agents


@asynccontextmanager
async def flooding(server: Server) -> AsyncIterator[tuple[Client, str]]:
    """An agent that waits for its first prompt, stopped at the end."""
    async with Client.connect(server.url, server.token) as client:
        (agent,) = await launch(client)
        yield client, agent
        await client.call("agent.stop", {"agent_id": agent, "force": True})


async def flood(client: Client, server: Server, agents: list[str]) -> float:
    """From the prompts until the counting client has the end of each turn, and every update before it."""
    each = UPDATES // len(agents)
    with counting.connect(server) as peer:
        start = time.perf_counter()
        prompts = [{"agent_id": agent, "prompt": str(each)} for agent in agents]
        await asyncio.gather(*(client.call("agent.prompt", prompt) for prompt in prompts))
        assert await asyncio.to_thread(counting.updates_until_results, peer, len(agents)) == each * len(agents)
        return each * len(agents) / (time.perf_counter() - start)


async def host_updates_per_s(server: Server) -> float:
    async with flooding(server) as (client, agent):
        return await flood(client, server, [agent])


@contextmanager
def opened() -> Iterator[tuple[Measure, Measure]]:
    with host(CONFIG, LIMITS) as server:
        yield (lambda: asyncio.run(host_updates_per_s(server)), lambda: asyncio.run(sdk_updates_per_s()))


@contextmanager
def captured() -> Iterator[tuple[Measure, Measure]]:
    with host(CONFIG, LIMITS) as ours, host(CONFIG, LIMITS | {"KANDEV_SESSION__CAPTURE": "false"}) as floor:
        yield (lambda: asyncio.run(host_updates_per_s(ours)), lambda: asyncio.run(host_updates_per_s(floor)))


@contextmanager
def metered() -> Iterator[tuple[Measure, Measure]]:
    with host(CONFIG, LIMITS | {"KANDEV_USE__TELEMETRY": "prometheus"}) as ours, host(CONFIG, LIMITS) as floor:
        yield (lambda: asyncio.run(host_updates_per_s(ours)), lambda: asyncio.run(host_updates_per_s(floor)))


ROWS = (
    Row(
        "acp_ingest",
        f"{UPDATES} updates, jail to journal to socket client, against the official SDK reading them",
        "updates/s",
        "≥ 2",
        opened,
    ),
    Row(
        "capture_ingest",
        "acp_ingest with the raw capture against one without",
        "updates/s",
        "≥ 0.9",
        captured,
    ),
    Row(
        "metered_ingest",
        "acp_ingest with metrics against one without",
        "updates/s",
        "≥ 0.9",
        metered,
    ),
)
