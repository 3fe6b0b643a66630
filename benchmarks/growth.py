"""growth: what a million stored events cost, against ten thousand: the p99 of a round trip, and the ingest of a flood.

Both sides are hosts; they differ only in what their journals held when they started.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.acp import CONFIG, LIMITS, host_updates_per_s
from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, connected, host
from benchmarks.sockets import ROUND_TRIPS, request
from benchmarks.stored import with_events

FEW, MANY = 10_000, 1_000_000


async def round_trip_p99_us(server: Server) -> float:
    times = []
    async with connected(server) as socket:
        for number in range(ROUND_TRIPS):
            start = time.perf_counter()
            await socket.send_str(request(number))
            await socket.receive_str()
            times.append(time.perf_counter() - start)
    return statistics.quantiles(times, n=100)[-1] * 1e6


def many_against_few(measure: Callable[[Server], Coroutine[Any, Any, float]]) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[tuple[Measure, Measure]]:
        with (
            host(CONFIG, LIMITS, with_events(MANY)) as grown,
            host(CONFIG, LIMITS, with_events(FEW)) as young,
        ):
            yield (lambda: asyncio.run(measure(grown)), lambda: asyncio.run(measure(young)))

    return opened


ROWS = (
    Row(
        "growth_roundtrip",
        f"health.check, p99, with {MANY:,} stored events against {FEW:,}",
        "µs",
        "≤ 1.5",
        many_against_few(round_trip_p99_us),
    ),
    Row(
        "growth_ingest",
        f"acp_ingest with {MANY:,} stored events against {FEW:,}",
        "updates/s",
        "≥ 0.67",
        many_against_few(host_updates_per_s),
    ),
)
