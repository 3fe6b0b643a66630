"""hostile_roundtrip: what a healthy client notices of others that send whatever breaks servers. Soak runs use it too.

What the host answers each of them is the tests' affair: here they only come, one after the other, and go.
"""

from __future__ import annotations

import asyncio
import base64
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, environment, host
from benchmarks.sockets import round_trips_us

ATTACKERS = 4
PATIENCE_S = 5.0
KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
HEADS = (
    "GET /ws HTTP/1.1\r\nHost: evil.example\r\n" + UPGRADE + "\r\n",
    "GET /ws HTTP/1.1\r\nHost: {own}\r\nOrigin: https://evil.example\r\n" + UPGRADE + "\r\n",
    "GET /ws HTTP/1.1\r\nHost: {own}\r\nAuthorization: Bearer wrong\r\n" + UPGRADE + "\r\n",
    "POST /login HTTP/1.1\r\nHost: {own}\r\nContent-Length: 9999999\r\n\r\n{",
    "GET /" + "x" * 20_000 + " HTTP/1.1\r\n\r\n",
    "\x16\x03\x01\x02\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: ",
)
# After the upgrade of somebody who has the token, or has none.
FRAMES = (
    b"\x81\x80mask",
    b"\x82\x81maskx",
    b"\xf1\x80mask",
    b"\x81\xff\x7f" + b"\xff" * 7 + b"mask",
    b"\x81\xfe\xff\xff" + bytes(4) + b"[" * 65535,
    b"\x81\xfe\x00\x80" + bytes(4) + b'{"id":"1","type":"request","action":"no.such","payload":{}}'.ljust(128),
    b"\x89\xfe\x01\x00" + bytes(260),
)


async def attack(server: Server) -> None:
    """Until it is cancelled."""
    own = server.url.partition("://")[2]
    name, _, port = own.rpartition(":")
    wanted = (f"Authorization: Bearer {server.token}\r\n", "")
    heads = [(head.replace("{own}", own).encode("latin-1"), b"") for head in HEADS]
    opened = [f"GET /ws HTTP/1.1\r\nHost: {own}\r\n{UPGRADE}{line}\r\n".encode() for line in wanted]
    for head, frame in cycle([*heads, *((head, frame * 50) for head in opened for frame in FRAMES)]):
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await asyncio.open_connection(name, int(port))
                try:
                    writer.write(head)
                    if frame:
                        await reader.readline()
                        writer.write(frame)
                    writer.write_eof()
                    await reader.read()
                finally:
                    writer.transport.abort()


async def besiege(server: Server) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(ATTACKERS):
            tasks.create_task(attack(server))


@contextmanager
def besieged() -> Iterator[Server]:
    """A host, and a process of its own for those that attack it, so that they do not slow down whoever measures."""
    with host() as server:
        env = environment(SIEGE_URL=server.url, SIEGE_TOKEN=server.token)
        siege = subprocess.Popen([sys.executable, "-m", "benchmarks.hostile"], env=env, cwd=Path(__file__).parents[1])
        try:
            yield server
            assert siege.poll() is None, "the attackers have given up"
        finally:
            siege.kill()
            siege.wait()


def p99_us(server: Server) -> float:
    return statistics.quantiles(asyncio.run(round_trips_us(server)), n=100)[-1]


@contextmanager
def both_sides() -> Iterator[tuple[Measure, Measure]]:
    with besieged() as attacked, host() as quiet:
        yield (lambda: p99_us(attacked), lambda: p99_us(quiet))


ROWS = (
    Row(
        "hostile_roundtrip",
        f"health.check, p99, beside {ATTACKERS} clients that send garbage, against none",
        "µs",
        "≤ 20",
        both_sides,
    ),
)

if __name__ == "__main__":
    asyncio.run(besiege(Server(os.environ["SIEGE_URL"], os.environ["SIEGE_TOKEN"], 0)))
