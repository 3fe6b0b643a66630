"""fan_out: one stream of events to 500 subscribers, against a bare aiohttp broadcast of text encoded beforehand.

One process holds the 500 sockets of either side and counts, no more, so that the sender is measured. Ours is a flooding
agent's stream: each event is decoded, committed with synchronous=FULL, given its `seq`, encoded, and sent to all.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket

from benchmarks import counting
from benchmarks.acp import CONFIG, LIMITS, flooding
from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, bare, connected, host

SUBSCRIBERS = 500
EVENTS = 200
MARK = b'"acp.log"'  # once in each frame
RECEIVE_BYTES = 1 << 20
TIMEOUT_S = 120.0
# As long as a notification of the flooding agent.
TEXT = '{"id":"","type":"notification","action":"acp.log","payload":"' + "x" * 420 + '","timestamp":"","seq":1}'


@contextmanager
def subscribed(server: Server) -> Iterator[list[socket]]:
    peers = [counting.connect(server) for _ in range(SUBSCRIBERS)]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()


def read_all(peers: list[socket]) -> None:
    """Until every socket has had every event. Blocks."""
    left = dict.fromkeys(peers, EVENTS)
    tails = dict.fromkeys(peers, b"")
    deadline = time.monotonic() + TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        for each in peers:
            each.setblocking(False)
            selector.register(each, selectors.EVENT_READ, each)
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(left)} of {len(peers)} subscribers did not get all")
            for key, _ in selector.select(1.0):
                peer: socket = key.data
                chunk = peer.recv(RECEIVE_BYTES)
                if not chunk:
                    raise ConnectionError("The server closed the connection")
                data = tails[peer] + chunk
                left[peer] = left.get(peer, 0) - data.count(MARK)
                tails[peer] = data[-(len(MARK) - 1) :]
                if left[peer] <= 0:
                    del left[peer]
                    selector.unregister(peer)


async def ours_per_s(server: Server) -> float:
    """Deliveries a second, from the prompt until everybody has everything."""
    async with flooding(server) as (client, agent):
        with subscribed(server) as peers:
            start = time.perf_counter()
            await client.call("agent.prompt", {"agent_id": agent, "prompt": str(EVENTS)})
            await asyncio.to_thread(read_all, peers)
            return EVENTS * SUBSCRIBERS / (time.perf_counter() - start)


async def floor_per_s(server: Server) -> float:
    with subscribed(server) as peers:
        async with connected(server) as control:
            start = time.perf_counter()
            await control.send_str(f"GO {EVENTS} {TEXT}")
            await asyncio.to_thread(read_all, peers)
            return EVENTS * SUBSCRIBERS / (time.perf_counter() - start)


@contextmanager
def opened() -> Iterator[tuple[Measure, Measure]]:
    limits = {**LIMITS, "KANDEV_GATEWAY__SOCKETS_PER_PRINCIPAL": "1000"}
    with host(CONFIG, limits) as ours, bare("broadcast") as floor:
        yield (lambda: asyncio.run(ours_per_s(ours)), lambda: asyncio.run(floor_per_s(floor)))


ROWS = (
    Row(
        "fan_out",
        f"{EVENTS} events to {SUBSCRIBERS} subscribers, against a bare aiohttp broadcast",
        "/s",
        "≥ 0.7",
        opened,
    ),
)
