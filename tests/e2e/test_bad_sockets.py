"""Many connections, slow and silent ones at the real port; what they may say is in test_hostile_sockets.py."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import anyio
import pytest

from kandev_host.client import Client

from .hostile.heads import upgrade
from .hostile.wire import DEADLINE_S, OWN, UPGRADE, answer_to, asking, frame, upgraded

pytestmark = pytest.mark.anyio

STALLED_S = 8.0
HOST_ENV = {
    "KANDEV_GATEWAY__HANDSHAKE_TIMEOUT_S": "5.0",
    "KANDEV_GATEWAY__LOGIN_TIMEOUT_S": "5.0",
    "KANDEV_GATEWAY__SLOW_CLIENT_TIMEOUT_S": f"{STALLED_S}",
    "KANDEV_GATEWAY__SOCKETS_PER_PRINCIPAL": "2000",
    "KANDEV_LOG__LEVEL": "debug",
}


@pytest.fixture(scope="module")
def host(make_host: Any) -> Any:
    """With the soft limit of descriptors that users have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        return make_host(**HOST_ENV)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def bystander(host: Any) -> AsyncIterator[Client]:
    """A client that must not notice, on a host that must have no surprise."""
    said = len(host.log())
    async with Client.connect(host.url, host.token) as client:
        yield client
        with anyio.fail_after(DEADLINE_S):
            assert (await client.call("health.check"))["status"] == "ok"
        assert client.closed is None
    assert "Traceback" not in host.log()[said:]


def address(host: Any) -> tuple[str, int]:
    return "127.0.0.1", int(host.url.rpartition(":")[2])


async def status_of(host: Any, request: str | None = None) -> int:
    return (await answer_to(host, upgrade() if request is None else request))[0]


async def test_a_socket_without_a_token_is_closed_and_told_nothing(host: Any, bystander: Client) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{host.url}/ws") as nameless:
        with anyio.fail_after(DEADLINE_S):
            message = await nameless.receive()
        assert (message.type, nameless.close_code) == (aiohttp.WSMsgType.CLOSE, 4401)
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{host.url}/ws") as nameless:
        await nameless.send_json({"id": "1", "type": "request", "action": "host.info", "payload": {}})
        with anyio.fail_after(DEADLINE_S):
            answer = (await nameless.receive()).json()
        assert answer["payload"]["code"] == "UNAUTHORIZED"


async def test_handshakes_that_never_end_are_dropped(host: Any, bystander: Client) -> None:
    sockets = [socket.create_connection(address(host)) for _ in range(200)]
    for number, each in enumerate(sockets):
        each.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nX: "[: number % 30])
        each.setblocking(False)
    waiting = set(sockets)
    with anyio.fail_after(DEADLINE_S):
        while waiting:
            waiting = {each for each in waiting if _takes_a_byte(each)}
            await anyio.sleep(0.05)
    for each in sockets:
        each.close()


def _takes_a_byte(peer: socket.socket) -> bool:
    try:
        return peer.send(b"y") == 1
    except (BrokenPipeError, ConnectionResetError):
        return False


async def test_p19_the_socket_after_the_thousandth_is_refused_and_agents_start(host: Any, bystander: Client) -> None:
    board = (await bystander.call("board.create", {"name": "Work"}))["board"]
    payload = {"board_id": board["id"], "title": "Work", "description": "", "agent_type": "demo"}
    task_id = (await bystander.call("task.create", payload))["task"]["id"]
    async with AsyncExitStack() as stack:
        open_sockets = 1  # the bystander's
        while open_sockets < 1000:
            await stack.enter_async_context(upgraded(host))
            open_sockets += 1
        assert await status_of(host) == 503
        await bystander.call("agent.launch", {"task_id": task_id, "prompt": "say: hello"})
        with anyio.fail_after(DEADLINE_S):
            async for message in bystander.notifications():
                if message.action == "acp.result":
                    break
    with anyio.fail_after(DEADLINE_S):
        while await status_of(host) != 101:
            await anyio.sleep(0.05)


async def test_a_reader_that_stalls_is_cut_and_delays_nobody(host: Any, bystander: Client) -> None:
    slowest = 0.0
    async with upgraded(host) as (_, writer):
        writer.transport.pause_reading()
        with anyio.fail_after(DEADLINE_S):
            while not writer.transport.is_closing():
                try:
                    writer.write(frame(asking("agent.types")) * 20)
                    await asyncio.wait_for(writer.drain(), 0.2)
                except TimeoutError:
                    pass
                except ConnectionError:
                    break
                started = anyio.current_time()
                await bystander.call("health.check")
                slowest = max(slowest, anyio.current_time() - started)
                await anyio.sleep(0.05)
    assert slowest < STALLED_S, "somebody waited until it was cut"


async def test_the_token_is_nowhere_but_in_its_file(host: Any, bystander: Client) -> None:
    """After all of the above, with the log at its most talkative."""
    assert await status_of(host, f"GET /ws?token={{token}} HTTP/1.1\r\n{OWN}{UPGRADE}\r\n") == 401
    await bystander.call("board.create", {"name": "Work"})
    found = subprocess.run(
        ["grep", "-rlF", host.token, str(host.home.parent)], capture_output=True, text=True, check=False
    ).stdout
    assert found.split() == [str(host.home / "token")]
    started_with = subprocess.run(
        ["cat", f"/proc/{host.process.pid}/environ", f"/proc/{host.process.pid}/cmdline"],
        capture_output=True,
        check=True,
    ).stdout
    assert host.token.encode() not in started_with
