"""The promises of docs/reliability.md that need a host, sockets and load; the others are named in its table."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError, ConnectionLost, ReconnectingClient

pytestmark = [pytest.mark.anyio, pytest.mark.load]

DEADLINE_S = 60
HINDERED_S = 10  # a thousand times what an answer takes
TOO_SLOW = 4408
EVENTS = int(os.environ.get("KANDEV_TEST_EVENTS", "20000"))
LAST_TITLE = "The end"
DISCONNECTS = int(os.environ.get("KANDEV_TEST_DISCONNECTS", "10"))
LIVE_S = float(os.environ.get("KANDEV_TEST_LIVE_S", "5"))
CLIENTS = 10
LIVE_CLIENTS = 50
DAY_S = 86_400
AHEAD = struct.Struct("@q")
CONFIG = """
[gateway]
requests_per_s = 1000000.0
request_burst = 1000000
[orchestrator]
auto_start = false
# The wait is anything below it (full jitter): as a rule hours, and less than the day by which the clock jumps.
backoff_s = 80000.0
backoff_limit_s = 80000.0
"""


@asynccontextmanager
async def connected(host: Any) -> AsyncIterator[Client]:
    async with Client.connect(host.url, host.token) as client:
        yield client


async def board_of(client: Client | ReconnectingClient) -> str:
    return str((await client.call("board.create", {"name": "Promises"}))["board"]["id"])


async def task_of(client: Client | ReconnectingClient, board_id: str, title: str = "A task") -> str:
    payload = {"board_id": board_id, "title": title, "description": ""}
    return str((await client.call("task.create", payload))["task"]["id"])


async def wait_for(client: Client, action: str, **fields: Any) -> dict[str, Any]:
    """The payload of the next such notification; fields of the agent or task it tells of, or its own."""
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            inner = message.payload.get("agent") or message.payload.get("task") or message.payload
            if message.action == action and all(inner.get(key) == value for key, value in fields.items()):
                return dict(message.payload)
    raise AssertionError("the connection was closed")


class Follower:
    """Follows a topic over connections that break at random, and keeps the numbers it was given."""

    def __init__(self, host: Any, topic: str, dice: random.Random) -> None:
        self.host = host
        self.topic = topic
        self.dice = dice
        self.seqs: list[int] = []
        self.journal_id: str | None = None
        self.ended = False

    async def follow(self, disconnects: int) -> None:
        """Break off `disconnects` times, then stay until the task has its last title.

        Whenever the host cuts it for being too slow on a busy machine (P6), it comes back as it was told to.
        """
        left = disconnects
        while left >= 0 and not self.ended:
            enough = self.dice.randint(1, max(1, EVENTS // (disconnects + 1))) if left else None
            try:
                await self._once(enough)
            except ConnectionLost as error:
                if error.details.get("close_code") != TOO_SLOW:
                    raise
            else:
                left -= 1

    async def _once(self, enough: int | None) -> None:
        async with connected(self.host) as client:
            after = self.seqs[-1] if self.seqs else 0
            await client.subscribe(self.topic, after_seq=after, journal_id=self.journal_id)
            self.journal_id = client.journal_id
            async for message in client.notifications():
                if message.seq is not None:
                    self.seqs.append(message.seq)
                    enough = None if enough is None else enough - 1
                self.ended = (message.payload.get("task") or {}).get("title") == LAST_TITLE
                if enough == 0 or self.ended:
                    return


@pytest.mark.timeout(1500)
async def test_p5_clients_that_are_cut_off_again_and_again_miss_nothing_and_get_nothing_twice(make_host: Any) -> None:
    host = make_host(CONFIG)
    async with ReconnectingClient(host.url, host.token) as client:
        task_id = await task_of(client, await board_of(client))
        await client.subscribe(f"task:{task_id}")
        followers = [Follower(host, f"task:{task_id}", random.Random(number)) for number in range(CLIENTS)]
        with anyio.fail_after(1400):
            async with anyio.create_task_group() as tasks:
                for follower in followers:
                    tasks.start_soon(follower.follow, DISCONNECTS)
                payload = {"task_id": task_id, "agent_type": "demo", "prompt": f"flood {EVENTS}"}
                agent = (await client.call("agent.launch", payload))["agent"]
                with anyio.fail_after(1200):
                    async for message in client.notifications():
                        if message.action == "acp.result":
                            break
                await client.call("agent.stop", {"agent_id": agent["id"]})
                reply = await client.call("task.update", {"task_id": task_id, "title": LAST_TITLE})
                assert reply["task"]["title"] == LAST_TITLE
    stored = followers[0].seqs
    assert len(stored) > EVENTS
    assert stored == sorted(set(stored))
    for follower in followers:
        assert follower.seqs == stored


@pytest.mark.timeout(300)
async def test_p6_a_client_that_does_not_read_is_cut_and_delays_nobody(make_host: Any) -> None:
    """Of 51 subscribers one stalls: 4408 for it; the others get every event, and the host keeps its size."""
    host = make_host(CONFIG)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(host.url.rpartition(":")[2]), limit=1024)
    address = host.url.removeprefix("http://")
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        f"Authorization: Bearer {host.token}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    frame = b'{"id":"1","type":"request","action":"events.subscribe","payload":{}}'
    writer.write(b"\x81" + bytes([0x80 | len(frame)]) + b"\0\0\0\0" + frame)
    await reader.readexactly(10)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    got = [0] * LIVE_CLIENTS
    sent = 0

    async def listen(number: int, ready: anyio.Event) -> None:
        async with connected(host) as client:
            await client.subscribe("*")
            ready.set()
            async for message in client.notifications():
                if message.payload.get("task", {}).get("title") == "The end":
                    return
                got[number] += message.action == "task.updated"

    async with connected(host) as client:
        task_id = await task_of(client, await board_of(client))
        before = rss_bytes(host)
        async with anyio.create_task_group() as tasks:
            for number in range(LIVE_CLIENTS):
                ready = anyio.Event()
                tasks.start_soon(listen, number, ready)
                await ready.wait()
            until = time.monotonic() + LIVE_S
            while time.monotonic() < until:
                text = f"{sent} " + "x" * 4000
                with anyio.fail_after(HINDERED_S):
                    await client.call("task.update", {"task_id": task_id, "description": text})
                sent += 1
            await client.call("task.update", {"task_id": task_id, "title": "The end"})
            tasks.cancel_scope.deadline = anyio.current_time() + DEADLINE_S
        assert got == [sent] * LIVE_CLIENTS
        assert rss_bytes(host) - before < 320 << 20
    with anyio.fail_after(100):
        while "A slow client was cut" not in host.log():
            async with connected(host) as client:  # what the kernel still takes
                await client.call("task.update", {"task_id": task_id, "description": os.urandom(100_000).hex()})
    writer.close()


def rss_bytes(host: Any) -> int:
    fields = Path(f"/proc/{host.process.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_p17_a_jump_of_the_clock_fires_no_timer_and_the_order_stays(make_host: Any, tmp_path: Path) -> None:
    """With a clock of our own: under libfaketime, blocking sleeps of other threads fail now and then (EINVAL)."""
    clock = tmp_path / "clock"
    clock.write_bytes(AHEAD.pack(0))
    library = tmp_path / "wall_clock.so"
    source = Path(__file__).parent / "wall_clock.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-nostdlib", "-O1", "-o", library, source], check=True, timeout=60)
    host = make_host(
        CONFIG + "[permissions]\nwait_timeout_s = 3600.0\n[agents.flapping]\ncommand = ['false']\n",
        LD_PRELOAD=str(library),
        TEST_CLOCK=str(clock),
    )
    async with connected(host) as client:
        await client.subscribe("*")
        board_id = await board_of(client)
        asking, flapping = await task_of(client, board_id, "asks"), await task_of(client, board_id, "flaps")
        await client.call("orchestrator.start", {"task_id": flapping, "agent_type": "flapping"})
        await wait_for(client, "orchestrator.updated", task_id=flapping)
        prompt = "write HELLO.md: hello"
        await client.call("agent.launch", {"task_id": asking, "agent_type": "demo", "prompt": prompt})
        permission = (await wait_for(client, "permission.requested"))["permission"]
        numbers = []
        for jump in (DAY_S, -DAY_S, 0):
            put_forward(clock, jump)
            task = (await client.call("task.create", {"board_id": board_id, "title": "t", "description": ""}))["task"]
            assert abs(time.time() + jump - seconds(task["created_at"])) < DEADLINE_S
            numbers.append((await wait_for_seq(client, task["id"]), task["id"]))
            pending = (await client.call("permission.list", {"state": "pending"}))["permissions"]
            assert [waiting["id"] for waiting in pending] == [permission["id"]]
            assert await attempts(client, flapping) == 1
        assert numbers == sorted(numbers)
        stored = await client.call("health.check")
        assert stored["status"] == "ok"


def put_forward(clock: Path, seconds: int) -> None:
    """In one step: the host has these eight bytes mapped."""
    with clock.open("r+b", buffering=0) as file:
        file.write(AHEAD.pack(seconds))


async def attempts(client: Client, task_id: str) -> int:
    return len((await client.call("agent.list", {"task_id": task_id}))["agents"])


async def wait_for_seq(client: Client, task_id: str) -> int:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == "task.created" and message.payload["task"]["id"] == task_id:
                assert message.seq is not None
                return message.seq
    raise AssertionError("the connection was closed")


def seconds(time_: str) -> float:
    return datetime.fromisoformat(time_).timestamp()


async def test_p18_what_one_client_sends_harms_nobody_else(make_host: Any) -> None:
    """One socket sends garbage as fast as it can; what another asks meanwhile is answered."""
    host = make_host("")
    stop = anyio.Event()

    async def harm() -> None:
        async with connected(host) as client:
            while not stop.is_set():
                with pytest.raises(ClientError, match=r"UNKNOWN_ACTION|RATE_LIMITED"):
                    await client.call("no.such", {"x": [[[["x" * 100_000]]]]})

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(harm)
        async with connected(host) as client:
            for _ in range(50):
                with anyio.fail_after(HINDERED_S):
                    assert (await client.call("health.check"))["status"] == "ok"
        stop.set()
