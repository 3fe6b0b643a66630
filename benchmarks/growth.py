"""growth: what a million stored events cost, against ten thousand, and what 10 and 100 agents cost, against one.

Both sides are hosts; they differ only in what their journals held when they started, or in how many agents they run.
Agents do nothing while round trips are measured; for the ingest they share out one flood among them.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.acp import CONFIG, LIMITS, flood, host_updates_per_s, launch
from benchmarks.measure import Measure, Row, Setup
from benchmarks.servers import Server, host
from benchmarks.sockets import round_trips_us
from benchmarks.stored import with_events
from kandev_host.client import Client

FEW, MANY = 10_000, 1_000_000
AGENTS = (10, 100)
SLOWER, LESS = "≤ 1.5", "≥ 0.67"


async def round_trip_p99_us(server: Server) -> float:
    return statistics.quantiles(await round_trips_us(server), n=100)[-1]


def many_events(measure: Callable[[Server], Coroutine[Any, Any, float]]) -> Setup:
    @contextmanager
    def opened() -> Iterator[tuple[Measure, Measure]]:
        with (
            host(CONFIG, LIMITS, with_events(MANY)) as grown,
            host(CONFIG, LIMITS, with_events(FEW)) as young,
        ):
            yield (lambda: asyncio.run(measure(grown)), lambda: asyncio.run(measure(young)))

    return opened


def many_agents(count: int, measure: Callable[[Server, list[str]], Coroutine[Any, Any, float]]) -> Setup:
    @contextmanager
    def opened() -> Iterator[tuple[Measure, Measure]]:
        with host(CONFIG, LIMITS) as full, host(CONFIG, LIMITS) as quiet:
            crowd, one = asyncio.run(launched(full, count)), asyncio.run(launched(quiet, 1))
            yield (lambda: asyncio.run(measure(full, crowd)), lambda: asyncio.run(measure(quiet, one)))

    return opened


async def launched(server: Server, count: int) -> list[str]:
    """Agents that stay until the host ends."""
    async with Client.connect(server.url, server.token) as client:
        return await launch(client, count)


async def updates_per_s(server: Server, agents: list[str]) -> float:
    async with Client.connect(server.url, server.token) as client:
        return await flood(client, server, agents)


ROWS = (
    Row(
        "growth_roundtrip",
        f"health.check, p99, with {MANY:,} stored events against {FEW:,}",
        "µs",
        SLOWER,
        many_events(round_trip_p99_us),
    ),
    Row(
        "growth_ingest",
        f"acp_ingest with {MANY:,} stored events against {FEW:,}",
        "updates/s",
        LESS,
        many_events(host_updates_per_s),
    ),
    *(
        Row(
            f"growth_roundtrip_{count}",
            f"health.check, p99, with {count} idle agents against one",
            "µs",
            SLOWER,
            many_agents(count, lambda server, _: round_trip_p99_us(server)),
        )
        for count in AGENTS
    ),
    *(
        Row(
            f"growth_ingest_{count}",
            f"acp_ingest shared by {count} agents against one",
            "updates/s",
            LESS,
            many_agents(count, updates_per_s),
        )
        for count in AGENTS
    ),
)
