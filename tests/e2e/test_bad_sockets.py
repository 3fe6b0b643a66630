"""Web pages, other local users and broken clients at the real host's port."""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import anyio
import pytest

from kandev_host.client import Client

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
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


async def upgrade(host: Any, path: str = "/ws", **headers: str) -> tuple[int, asyncio.StreamWriter]:
    """The status of an upgrade asked for with these headers, over a bare socket."""
    usual = {
        "Host": f"127.0.0.1:{address(host)[1]}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {**usual, **headers}.items()), "", ""]
    reader, writer = await asyncio.open_connection(*address(host))
    writer.write("\r\n".join(lines).encode())
    with anyio.fail_after(DEADLINE_S):
        status = int((await reader.readline()).split()[1])
    return status, writer


async def status_of(host: Any, path: str = "/ws", **headers: str) -> int:
    status, writer = await upgrade(host, path, **headers)
    writer.close()
    return status


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example", "0.0.0.0", "[::]", ""])
async def test_a_rebound_name_is_refused_even_with_the_token(host: Any, bystander: Client, name: str) -> None:
    token = f"Bearer {host.token}"
    port = address(host)[1]
    assert await status_of(host, Host=name, Authorization=token) in {400, 421}
    if name != "127.0.0.1":
        assert await status_of(host, Host=f"{name}:{port}", Origin=f"http://{name}:{port}", Authorization=token) in {
            400,
            421,
        }


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "file://", "http://127.0.0.1"]
)
async def test_a_web_page_is_refused_even_with_the_token(host: Any, bystander: Client, origin: str) -> None:
    assert await status_of(host, Origin=origin, Authorization=f"Bearer {host.token}") == 403


async def test_no_header_or_address_carries_the_token_but_the_right_ones(host: Any, bystander: Client) -> None:
    token = host.token
    assert await status_of(host, f"/ws?token={token}") == 401
    assert await status_of(host, "/ws", Authorization="Bearer wrong") == 401
    assert await status_of(host, "/ws", Authorization=f"Basic {token}") == 401
    assert await status_of(host, "/ws", Authorization=f"Bearer {token}x") == 401
    assert await status_of(host, "/ws", Authorization=f"Bearer {token[:-1]}") == 401
    assert await status_of(host, "/ws", **{"Sec-WebSocket-Protocol": "kandev.v1, bearer.wrong"}) == 401


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


@pytest.mark.parametrize(
    "request_", [b"\0\r\n\r\n", b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\ny", b"y" * 100_000]
)
async def test_malformed_http_leaves_no_trace_in_the_log(host: Any, bystander: Client, request_: bytes) -> None:
    reader, writer = await asyncio.open_connection(*address(host))
    writer.write(request_)
    with anyio.fail_after(DEADLINE_S):
        answer = await reader.read()
    assert not answer or answer.split()[1] in {b"400", b"421"}
    assert b"Traceback" not in answer
    writer.close()


async def test_p19_the_socket_after_the_thousandth_is_refused_and_agents_start(host: Any, bystander: Client) -> None:
    board = (await bystander.call("board.create", {"name": "Work"}))["board"]
    payload = {"board_id": board["id"], "title": "Work", "description": "", "agent_type": "demo"}
    task_id = (await bystander.call("task.create", payload))["task"]["id"]
    async with AsyncExitStack() as stack:
        open_sockets = 1  # the bystander's
        while open_sockets < 1000:
            status, writer = await upgrade(host, Authorization=f"Bearer {host.token}")
            stack.callback(writer.close)
            assert status == 101
            open_sockets += 1
        assert await status_of(host, Authorization=f"Bearer {host.token}") == 503
        await bystander.call("agent.launch", {"task_id": task_id, "prompt": "say: hello"})
        with anyio.fail_after(DEADLINE_S):
            async for message in bystander.notifications():
                if message.action == "acp.result":
                    break
    with anyio.fail_after(DEADLINE_S):
        while await status_of(host, Authorization=f"Bearer {host.token}") != 101:
            await anyio.sleep(0.05)


ASKING = b'{"id":"1","type":"request","action":"board.create","payload":'
GARBAGE: list[bytes] = [
    b"", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'"' + b"\\" * 1000 + b'"',
    b'{"id":"1","type":"request","action":"\\ud800"}', b'{"id":1e999,"type":"request","action":"x"}',
    ASKING + b'{"name":"\\udfff"}}', ASKING + b'{"name":1e999}}', ASKING + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("frame", GARBAGE, ids=range(len(GARBAGE)))
async def test_a_frame_of_garbage_is_answered_and_the_socket_goes_on(
    host: Any, bystander: Client, frame: bytes
) -> None:
    headers = {"Authorization": f"Bearer {host.token}"}
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{host.url}/ws", headers=headers) as mine:
        await mine.send_frame(frame, aiohttp.WSMsgType.TEXT)
        with anyio.fail_after(DEADLINE_S):
            answer = await mine.receive()
        if b"\xff" in frame:
            assert answer.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE}
            return
        assert answer.json()["type"] == "error"
        assert answer.json()["payload"]["code"] in {"BAD_REQUEST", "VALIDATION_ERROR", "UNKNOWN_ACTION"}
        await mine.send_json({"id": "2", "type": "request", "action": "health.check"})
        with anyio.fail_after(DEADLINE_S):
            assert (await mine.receive()).json()["type"] == "response"


@pytest.mark.parametrize(
    "frame",
    [
        b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + b"mask" + b"x" * 1000,  # says that it is 2^63 bytes long
        b"\x81\xff\x00\x00\x00\x00\x00\x20\x00\x00" + b"mask" + b"x" * 100_000,  # 2 MiB
        b"\xf1\x80mask",  # reserved bits
        b"\x8f\x80mask",  # an opcode that does not exist
        b"\x89\xfe\x10\x00" + b"mask" + b"x" * 4096,  # a ping of 4096 bytes
        os.urandom(4096),
    ],
    ids=["endless", "giant", "reserved", "opcode", "ping", "noise"],
)
async def test_a_broken_frame_ends_its_socket_alone(host: Any, bystander: Client, frame: bytes) -> None:
    reader, writer = await asyncio.open_connection(*address(host))
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: {address(host)[0]}:{address(host)[1]}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Authorization: Bearer {host.token}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    writer.write(frame)
    with anyio.fail_after(DEADLINE_S):
        with suppress(ConnectionResetError):
            await reader.read()  # to the end of the stream
    writer.close()


async def test_a_reader_that_stalls_is_cut_and_delays_nobody(host: Any, bystander: Client) -> None:
    status, writer = await upgrade(host, Authorization=f"Bearer {host.token}")
    assert status == 101
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    asking = b'{"id":"1","type":"request","action":"agent.types","payload":{}}'
    frame = b"\x81" + bytes([0x80 | len(asking)]) + b"\0\0\0\0" + asking
    slowest = 0.0
    with anyio.fail_after(DEADLINE_S):
        while True:
            try:
                writer.write(frame * 20)
                await asyncio.wait_for(writer.drain(), 0.2)
            except TimeoutError:
                pass
            except ConnectionError:
                break
            if writer.transport.is_closing():
                break
            started = anyio.current_time()
            await bystander.call("health.check")
            slowest = max(slowest, anyio.current_time() - started)
            await anyio.sleep(0.05)
    assert slowest < STALLED_S, "somebody waited until it was cut"
    writer.close()


async def test_the_token_is_nowhere_but_in_its_file(host: Any, bystander: Client) -> None:
    """After all of the above, with the log at its most talkative."""
    await status_of(host, f"/ws?token={host.token}")
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
