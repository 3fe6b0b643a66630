"""ws_roundtrip and ws_throughput: `health.check` against a bare echo, by the same client."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, bare, connected, host

ROUND_TRIPS = 2000
MESSAGES = 20_000
IN_FLIGHT = 64
REQUEST = json.dumps({"id": "{}", "type": "request", "action": "health.check", "payload": {}})


def request(number: int) -> str:
    return REQUEST.replace("{}", str(number), 1)


async def round_trips_us(server: Server) -> list[float]:
    """One request at a time."""
    times = []
    async with connected(server) as socket:
        for number in range(ROUND_TRIPS):
            start = time.perf_counter()
            await socket.send_str(request(number))
            await socket.receive_str()
            times.append((time.perf_counter() - start) * 1e6)
    return times


async def round_trip_p50_us(server: Server) -> float:
    return statistics.median(await round_trips_us(server))


async def messages_per_s(server: Server) -> float:
    """Answered requests a second, 64 in flight."""
    async with connected(server) as socket:
        start = time.perf_counter()
        for number in range(IN_FLIGHT):
            await socket.send_str(request(number))
        for number in range(IN_FLIGHT, MESSAGES):
            await socket.receive_str()
            await socket.send_str(request(number))
        for _ in range(IN_FLIGHT):
            await socket.receive_str()
        return MESSAGES / (time.perf_counter() - start)


def against_echo(measure: Callable[[Server], Coroutine[Any, Any, float]]) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[tuple[Measure, Measure]]:
        with host() as ours, bare("echo") as floor:
            yield (lambda: asyncio.run(measure(ours)), lambda: asyncio.run(measure(floor)))

    return opened


ROWS = (
    Row(
        "ws_roundtrip",
        "health.check, one client, sequential, p50, against a bare aiohttp echo",
        "µs",
        "≤ 1.5",
        against_echo(round_trip_p50_us),
    ),
    Row("ws_throughput", "health.check, 64 in flight, same floor", "msg/s", "≥ 0.5", against_echo(messages_per_s)),
)
