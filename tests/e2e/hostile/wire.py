"""Requests and frames byte by byte, as no client of ours would send them, and what a host answers."""

from __future__ import annotations

import asyncio
import base64
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio

DEADLINE_S = 120
KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
TOKEN = "Authorization: Bearer {token}\r\n"
OWN = "Host: {own}\r\n"
WS = "GET /ws HTTP/1.1\r\n"
CLOSED = -1  # without a word
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
# What tells whoever attacks how this host is made: its libraries, its source and its folders.
TELLING = re.compile(rb"Traceback|File \"|\.py\b|site-packages|aiohttp|msgspec|apsw|Python/|/tmp/|/root|/home")


def own(host: Any) -> str:
    return str(host.url.partition("://")[2])


def filled(host: Any, request: str) -> bytes:
    return request.replace("{own}", own(host)).replace("{token}", host.token).encode("utf-8", "surrogateescape")


@asynccontextmanager
async def raw(host: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    name, _, port = own(host).rpartition(":")
    with anyio.fail_after(DEADLINE_S):
        reader, writer = await asyncio.open_connection(name, int(port))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def answer_to(host: Any, request: str | bytes) -> tuple[int, bytes]:
    """Status and all of the answer; CLOSED when there is none."""
    async with raw(host) as (reader, writer):
        writer.write(filled(host, request) if isinstance(request, str) else request)
        answer = b""
        with suppress(ConnectionResetError, asyncio.IncompleteReadError):
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", answer)
            if length is not None:
                answer += await reader.readexactly(int(length[1]))
    status = int(answer.split()[1]) if answer else CLOSED
    assert not TELLING.search(answer), answer
    assert host.token.encode() not in answer
    return status, answer


@asynccontextmanager
async def upgraded(host: Any, credentials: str = TOKEN) -> AsyncIterator[Any]:
    async with raw(host) as (reader, writer):
        writer.write(filled(host, f"{WS}{OWN}{UPGRADE}{credentials}\r\n"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        yield reader, writer


def frame(payload: bytes, first: int = TEXT, mask: bytes = b"mask") -> bytes:
    if len(payload) < 126:
        length = bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        length = b"\xfe" + struct.pack("!H", len(payload))
    else:
        length = b"\xff" + struct.pack("!Q", len(payload))
    return bytes([first]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def asking(action: str, payload: str = "{}", id: str = '"1"') -> bytes:
    return f'{{"id":{id},"type":"request","action":"{action}","payload":{payload}}}'.encode()


async def received(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame: its opcode and payload. CLOSED when the peer ended without a word."""
    try:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = struct.unpack("!H", await reader.readexactly(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", await reader.readexactly(8))[0]
        payload = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return CLOSED, b""
    assert not TELLING.search(payload), payload
    return first, payload


async def closed_with(reader: asyncio.StreamReader) -> int:
    """The code with which the host ends the socket, whatever it says before."""
    while True:
        first, payload = await received(reader)
        if first == CLOSE:
            return int(struct.unpack("!H", payload[:2])[0]) if payload else CLOSED
        if first == CLOSED:
            return CLOSED
