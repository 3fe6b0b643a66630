"""Handshakes, headers and frames that no client of ours would send, byte by byte, at one real host.

Each gets its clean answer or close code, and a healthy client beside them is served all the while.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
HOST_ENV = {
    "KANDEV_GATEWAY__HANDSHAKE_TIMEOUT_S": "2.0",
    "KANDEV_GATEWAY__LOGIN_TIMEOUT_S": "2.0",
    "KANDEV_GATEWAY__SLOW_CLIENT_TIMEOUT_S": "2.0",
    "KANDEV_GATEWAY__MESSAGE_LIMIT_BYTES": "65536",
    "KANDEV_GATEWAY__SOCKETS_TOTAL": "20",
    "KANDEV_GATEWAY__HANDSHAKES_LIMIT": "24",
}
KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
TOKEN = "Authorization: Bearer {token}\r\n"
OWN = "Host: {own}\r\n"
WS = "GET /ws HTTP/1.1\r\n"
CLOSED = -1  # without a word


@pytest.fixture(scope="module")
def host(one_host: Any) -> Any:
    return one_host


@pytest.fixture
async def bystander(host: Any) -> AsyncIterator[Client]:
    """A client that must not notice, on a host that must have no surprise and show no secret."""
    said = len(host.log())
    async with Client.connect(host.url, host.token) as client:
        yield client
        with anyio.fail_after(DEADLINE_S):
            assert (await client.call("health.check"))["status"] == "ok"
        assert client.closed is None
    log = host.log()[said:]
    assert "Traceback" not in log
    assert host.token not in log


def own(host: Any) -> str:
    return str(host.url.partition("://")[2])


@asynccontextmanager
async def raw(host: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    name, _, port = own(host).rpartition(":")
    with anyio.fail_after(DEADLINE_S):
        reader, writer = await asyncio.open_connection(name, int(port))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def answer_to(host: Any, request: str | bytes) -> bytes:
    """All that the host sends until it closes; "Connection: close" is up to the case."""
    if isinstance(request, str):
        request = request.replace("{own}", own(host)).replace("{token}", host.token).encode("utf-8", "surrogateescape")
    async with raw(host) as (reader, writer):
        writer.write(request)
        answer = b""
        with suppress(ConnectionResetError):
            while b"\r\n\r\n" not in answer:
                part = await reader.read(65536)
                if not part:
                    break
                answer += part
        return answer


HANDSHAKES: dict[str, tuple[str | bytes, set[int]]] = {
    # Names: a rebound one is the attacker's, whatever else is right.
    "rebound": (f"{WS}Host: evil.example\r\n{UPGRADE}{TOKEN}\r\n", {421}),
    "rebound-port": (f"{WS}Host: evil.example:8080\r\n{UPGRADE}{TOKEN}\r\n", {421}),
    "rebound-same-origin": (f"{WS}Host: evil.example\r\nOrigin: http://evil.example\r\n{UPGRADE}{TOKEN}\r\n", {421}),
    "rebound-health": ("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "rebound-schema": ("GET /schema.json HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "rebound-login": ("GET /login HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "rebound-nowhere": ("GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "rebound-forwarded": (f"{WS}Host: evil.example\r\nX-Forwarded-Host: {{own}}\r\n{UPGRADE}{TOKEN}\r\n", {421}),
    "no-host": (f"{WS}{UPGRADE}{TOKEN}\r\n", {400, 421}),
    "empty-host": (f"{WS}Host:\r\n{UPGRADE}{TOKEN}\r\n", {400, 421}),
    "two-hosts": (f"{WS}{OWN}Host: evil.example\r\n{UPGRADE}{TOKEN}\r\n", {400, 421}),
    "host-list": (f"{WS}Host: {{own}}, evil.example\r\n{UPGRADE}{TOKEN}\r\n", {400, 421}),
    "host-user": (f"{WS}Host: x@{{own}}\r\n{UPGRADE}{TOKEN}\r\n", {400, 421}),
    "host-dot": (f"{WS}Host: localhost.:1\r\n{UPGRADE}{TOKEN}\r\n", {421}),
    "host-number": (f"{WS}Host: 2130706433\r\n{UPGRADE}{TOKEN}\r\n", {421}),
    "host-zero": (f"{WS}Host: 0.0.0.0\r\n{UPGRADE}{TOKEN}\r\n", {421}),
    "host-mapped": (f"{WS}Host: [::ffff:127.0.0.1]\r\n{UPGRADE}{TOKEN}\r\n", {400, 421}),
    "host-no-port": (f"{WS}Host: 127.0.0.1\r\n{UPGRADE}{TOKEN}\r\n", {421}),
    "absolute": (f"GET http://evil.example/ws HTTP/1.1\r\n{OWN}{UPGRADE}{TOKEN}\r\n", {400, 421}),
    # Pages of others.
    "origin": (f"{WS}{OWN}Origin: https://evil.example\r\n{UPGRADE}{TOKEN}\r\n", {403}),
    "origin-null": (f"{WS}{OWN}Origin: null\r\n{UPGRADE}{TOKEN}\r\n", {403}),
    "origin-empty": (f"{WS}{OWN}Origin:\r\n{UPGRADE}{TOKEN}\r\n", {403}),
    "origin-prefix": (f"{WS}{OWN}Origin: http://{{own}}.evil.example\r\n{UPGRADE}{TOKEN}\r\n", {403}),
    "origin-port": (f"{WS}{OWN}Origin: http://localhost:3000\r\n{UPGRADE}{TOKEN}\r\n", {403}),
    "origin-scheme": (f"{WS}{OWN}Origin: https://{{own}}\r\n{UPGRADE}{TOKEN}\r\n", {403}),
    "origin-twice": (f"{WS}{OWN}Origin: http://{{own}}\r\nOrigin: http://e\r\n{UPGRADE}{TOKEN}\r\n", {403}),
    "preflight": (f"OPTIONS /login HTTP/1.1\r\n{OWN}Origin: http://e\r\n\r\n", {403}),
    "post-elsewhere": (f"POST /login HTTP/1.1\r\n{OWN}Origin: http://e\r\nContent-Length: 2\r\n\r\n{{}}", {403}),
    "post-no-origin": (f"POST /login HTTP/1.1\r\n{OWN}Content-Length: 2\r\n\r\n{{}}", {403}),
    # Credentials.
    "wrong": (f"{WS}{OWN}Authorization: Bearer wrong\r\n{UPGRADE}\r\n", {401}),
    "present-but-empty": (f"{WS}{OWN}Authorization:\r\n{UPGRADE}\r\n", {401}),
    "basic": (f"{WS}{OWN}Authorization: Basic {{token}}\r\n{UPGRADE}\r\n", {401}),
    "twice": (f"{WS}{OWN}{TOKEN}Authorization: Bearer wrong\r\n{UPGRADE}\r\n", {400, 401}),
    "header-and-protocol": (f"{WS}{OWN}{TOKEN}Sec-WebSocket-Protocol: bearer.wrong\r\n{UPGRADE}\r\n", {401}),
    "query": (f"GET /ws?token={{token}} HTTP/1.1\r\n{OWN}{UPGRADE}\r\n", {401}),
    "query-escaped": (f"GET /ws?%74oken={{token}} HTTP/1.1\r\n{OWN}{UPGRADE}\r\n", {401}),
    "cookie": (f"GET /login HTTP/1.1\r\n{OWN}Cookie: token={{token}}\r\n\r\n", {200}),
    "bytes": (f"{WS}{OWN}Authorization: Bearer \udcff\udcfe\r\n{UPGRADE}\r\n", {400, 401}),
    "endless": (f"{WS}{OWN}Authorization: Bearer {'x' * 7000}\r\n{UPGRADE}\r\n", {400, 401}),
    # HTTP.
    "plain": (f"{WS}{OWN}{TOKEN}\r\n", {426}),
    "post-ws": (f"POST /ws HTTP/1.1\r\n{OWN}{UPGRADE}{TOKEN}\r\n", {400, 405}),
    "version": (f"{WS}{OWN}{UPGRADE.replace('13', '99')}{TOKEN}\r\n", {400, 426}),
    "key": (f"{WS}{OWN}{UPGRADE.replace(KEY, 'short')}{TOKEN}\r\n", {400, 426}),
    "old-http": (f"GET /health HTTP/1.0\r\n{OWN}\r\n", {200, 400, 421}),
    "no-http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
    "nul": (b"GET /health\0 HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "header-injection": (f"GET /health HTTP/1.1\r\n{OWN}X: a\rSet-Cookie: b\r\n\r\n", {400}),
    "header-flood": (f"GET /health HTTP/1.1\r\n{OWN}" + "X: y\r\n" * 5000 + "\r\n", {200, 400, 431, CLOSED}),
    "header-long": (f"GET /health HTTP/1.1\r\n{OWN}X: {'y' * 100_000}\r\n\r\n", {400, 431, CLOSED}),
    "line-long": (f"GET /{'y' * 100_000} HTTP/1.1\r\n{OWN}\r\n", {400, 414, CLOSED}),
    "smuggled": (
        f"POST /login HTTP/1.1\r\n{OWN}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "two-lengths": (f"POST /login HTTP/1.1\r\n{OWN}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{{}}", {400}),
    "length": (f"POST /login HTTP/1.1\r\n{OWN}Content-Length: -1\r\n\r\n", {400}),
    "traversal": (f"GET /login/../../token HTTP/1.1\r\n{OWN}\r\n", {400, 404}),
    "traversal-escaped": (f"GET /%2e%2e/%2e%2e/token HTTP/1.1\r\n{OWN}\r\n", {400, 404}),
    "trace": (f"TRACE /health HTTP/1.1\r\n{OWN}Cookie: secret\r\n\r\n", {400, 405}),
    "connect": ("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", {400, 404, 405, 421}),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_p18_a_hostile_handshake_is_refused_cleanly(host: Any, bystander: Client, name: str) -> None:
    request, wanted = HANDSHAKES[name]
    answer = await answer_to(host, request)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (int(head.split()[1]) if head else CLOSED) in wanted, answer
    lines = head.lower()
    assert b"access-control" not in lines
    assert b"set-cookie" not in lines
    for secret in (host.token.encode(), b"Traceback", b"aiohttp", b"secret"):
        assert secret not in answer
    if b"application/json" in lines:
        assert b"content-security-policy" in lines
        assert b"nosniff" in lines
    assert len(body) < 65536


def frame(payload: bytes, first: int = 0x81, mask: bool = True) -> bytes:
    flag = 0x80 if mask else 0
    if len(payload) < 126:
        length = bytes([flag | len(payload)])
    elif len(payload) < 65536:
        length = bytes([flag | 126]) + struct.pack("!H", len(payload))
    else:
        length = bytes([flag | 127]) + struct.pack("!Q", len(payload))
    return bytes([first]) + length + (b"\0\0\0\0" if mask else b"") + payload


def asking(action: str, payload: str = "{}", id: str = '"1"') -> bytes:
    return f'{{"id":{id},"type":"request","action":"{action}","payload":{payload}}}'.encode()


# What is sent after the upgrade → the code of the error or of the close that comes.
FRAMES: dict[str, tuple[bytes, set[Any]]] = {
    "binary": (frame(b"x", 0x82), {1003}),
    "too-large": (frame(b" " * 70_000), {1009}),
    "too-large-in-parts": (frame(b" " * 40_000, 0x01) + frame(b" " * 40_000, 0x80), {1009}),
    "says-2^63": (b"\x81\xff\x7f" + b"\xff" * 7 + b"mask", {1002, 1009, CLOSED}),
    "reserved-bit": (frame(b"{}", 0xC1), {1002, CLOSED}),
    "unknown-opcode": (frame(b"{}", 0x83), {1002, CLOSED}),
    "control-in-parts": (frame(b"x", 0x09), {1002, CLOSED}),
    "control-too-long": (frame(b"x" * 126, 0x89), {1002, CLOSED}),
    "continues-nothing": (frame(b"x", 0x80), {1002, CLOSED}),
    "begins-twice": (frame(b"{", 0x01) + frame(b"{", 0x01), {1002, CLOSED}),
    "close-code-1": (frame(b"\x00\x01", 0x88), {1002, CLOSED}),
    "close-one-byte": (frame(b"\x00", 0x88), {1002, CLOSED}),
    "close-not-utf8": (frame(b"\x03\xe8\xff\xfe", 0x88), {1002, 1007, 1000, CLOSED}),
    "close": (frame(b"\x03\xe8", 0x88), {1000, CLOSED}),
    "empty": (frame(b""), {"BAD_REQUEST"}),
    "not-json": (frame(b"hello"), {"BAD_REQUEST"}),
    "not-utf8": (frame(b"\xff\xfe"), {"BAD_REQUEST", 1007}),
    "deep": (frame(asking("board.create", "[" * 65 + "]" * 65)), {"BAD_REQUEST", "VALIDATION_ERROR"}),
    "very-deep": (frame(b"[" * 60_000), {"BAD_REQUEST"}),
    "number": (frame(asking("board.create", '{"name":' + "9" * 5000 + "}")), {"BAD_REQUEST", "VALIDATION_ERROR"}),
    "two-of-a-key": (frame(b'{"id":"1","id":"2","type":"request","action":"x"}'), {"UNKNOWN_ACTION", "BAD_REQUEST"}),
    "no-id": (frame(b'{"type":"request","action":"health.check"}'), {"BAD_REQUEST"}),
    "id-null": (frame(asking("health.check", id="null")), {"BAD_REQUEST"}),
    "id-number": (frame(asking("health.check", id="1")), {"BAD_REQUEST"}),
    "id-long": (frame(asking("health.check", id=f'"{"x" * 129}"')), {"BAD_REQUEST"}),
    "a-response": (frame(b'{"id":"1","type":"response","action":"health.check","payload":{}}'), {"BAD_REQUEST"}),
    "a-notification": (frame(b'{"id":"1","type":"notification","action":"acp.log","payload":{}}'), {"BAD_REQUEST"}),
    "unknown-action": (frame(asking("config.apply")), {"UNKNOWN_ACTION"}),
    "prototype": (frame(asking("__class__")), {"UNKNOWN_ACTION"}),
    "unknown-field": (frame(asking("board.create", '{"name":"x","owner":1}')), {"VALIDATION_ERROR"}),
    "payload-list": (frame(asking("health.check", "[]")), {"VALIDATION_ERROR", "BAD_REQUEST"}),
    "wrong-token": (frame(asking("auth.login", '{"token":"wrong"}')), {"UNAUTHORIZED"}),
    "a-path-outside": (
        frame(asking("workspace.read", '{"task_id":"x","path":"../../token"}')),
        {"NOT_FOUND", "VALIDATION_ERROR"},
    ),
}


async def answered(reader: asyncio.StreamReader) -> Any:
    """The code of the first error or close; CLOSED for an end without one."""
    try:
        while True:
            first, second = await reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                length = struct.unpack("!H", await reader.readexactly(2))[0]
            elif length == 127:
                length = struct.unpack("!Q", await reader.readexactly(8))[0]
            payload = await reader.readexactly(length)
            if first & 0x0F == 8:
                return struct.unpack("!H", payload[:2])[0] if payload else CLOSED
            if first & 0x0F == 1:
                found = payload.partition(b'"code":"')[2].partition(b'"')[0]
                assert b"Traceback" not in payload
                return found.decode()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return CLOSED


@asynccontextmanager
async def upgraded(host: Any, credentials: str = TOKEN) -> AsyncIterator[Any]:
    async with raw(host) as (reader, writer):
        request = f"{WS}{OWN}{UPGRADE}{credentials}\r\n".replace("{own}", own(host)).replace("{token}", host.token)
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        yield reader, writer


async def refused(host: Any, stack: AsyncExitStack) -> bytes:
    """Open sockets until one is refused; what it was answered."""
    while True:
        reader, writer = await stack.enter_async_context(raw(host))
        request = f"{WS}{OWN}{UPGRADE}{TOKEN}\r\n".replace("{own}", own(host)).replace("{token}", host.token)
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            return head


@pytest.mark.parametrize("name", FRAMES)
async def test_p18_a_hostile_frame_gets_its_code(host: Any, bystander: Client, name: str) -> None:
    sent, wanted = FRAMES[name]
    async with upgraded(host) as (reader, writer):
        writer.write(sent)
        assert await answered(reader) in wanted


@pytest.mark.parametrize("name", ["binary", "not-json", "no-id", "unknown-action", "too-large", "wrong-token"])
async def test_p18_before_the_log_in_every_frame_ends_the_socket(host: Any, bystander: Client, name: str) -> None:
    async with upgraded(host, credentials="") as (reader, writer):
        writer.write(FRAMES[name][0])
        codes = [await answered(reader), await answered(reader)]
        assert codes[0] in {"BAD_REQUEST", "UNAUTHORIZED", 4401, 1003, 1009}
        assert codes[-1] in {4401, CLOSED}


async def test_p19_the_socket_beyond_the_total_is_refused_cleanly(host: Any, bystander: Client) -> None:
    async with AsyncExitStack() as stack:
        answer = await refused(host, stack)
        assert answer.split()[1] == b"503"
        assert b"content-security-policy" in answer.lower()
        assert (await bystander.call("health.check"))["status"] == "ok"
    with anyio.fail_after(DEADLINE_S):
        while not (await answer_to(host, f"{WS}{OWN}{UPGRADE}{TOKEN}\r\n")).startswith(b"HTTP/1.1 101"):
            await anyio.sleep(0.05)


async def test_connections_that_say_nothing_keep_nobody_out(host: Any, bystander: Client) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(raw(host))
        async with Client.connect(host.url, host.token) as client:
            assert (await client.call("health.check"))["status"] == "ok"
