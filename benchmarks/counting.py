"""A WebSocket client that costs next to nothing: it takes frames off a socket, parses their JSON, and counts.

An ordinary client spends as much on each frame as the host does, and shares its two cores: it would be measured.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from struct import unpack
from urllib.parse import urlsplit

import msgspec

from benchmarks.servers import Server

RECEIVE_BYTES = 1 << 20
TIMEOUT_S = 60.0
TEXT = 0x81
PONG = 0x8A  # the host sends one whenever its buffers are full


class Frame(msgspec.Struct):
    """What is looked at. The rest is parsed, and dropped."""

    action: str | None
    seq: int | None = None


def connect(server: Server) -> socket.socket:
    """A socket behind the upgrade (RFC 6455, 4.1), subscribed to everything."""
    address = urlsplit(server.url)
    peer = socket.create_connection((address.hostname, address.port), TIMEOUT_S)
    peer.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Authorization: Bearer {server.token}\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += peer.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    request = {"id": "1", "type": "request", "action": "events.subscribe", "payload": {"topics": ["*"]}}
    text = msgspec.json.encode(request)
    assert len(text) < 126
    peer.sendall(bytes((TEXT, 0x80 | len(text), 0, 0, 0, 0)) + text)  # masked with zeros
    return peer


def frames(peer: socket.socket) -> Iterator[Frame]:
    """Every text frame, decoded. Blocks."""
    decode = msgspec.json.Decoder(Frame).decode
    held = b""
    while chunk := peer.recv(RECEIVE_BYTES):
        data, start = held + chunk, 0
        while (found := payload_of(data, start)) is not None:
            kind, (first, start) = data[start], found
            if kind == TEXT:
                yield decode(memoryview(data)[first:start])
        held = data[start:]


def payload_of(data: bytes, start: int) -> tuple[int, int] | None:
    """Where the payload of the unmasked frame at `start` begins and ends; None if it is not all there."""
    if len(data) < start + 2:
        return None
    assert data[start] in {TEXT, PONG}, f"the host ended the connection: {data[start + 2 : start + 127]!r}"
    length, first = data[start + 1], start + 2
    if length > 125 and len(data) < start + 10:  # the longest header; no long frame is shorter
        return None
    if length == 126:
        (length,), first = unpack("!H", data[start + 2 : start + 4]), start + 4
    elif length == 127:
        (length,), first = unpack("!Q", data[start + 2 : start + 10]), start + 10
    return (first, first + length) if len(data) >= first + length else None


def updates_until_results(peer: socket.socket, turns: int) -> int:
    """How many acp.log came before the last acp.result of so many turns; raises when a `seq` is missing."""
    updates, last = 0, None
    for frame in frames(peer):
        if frame.seq is not None and frame.action != "events.subscribe":
            assert last is None or frame.seq == last + 1, "an event is missing"
            last = frame.seq
        if frame.action == "acp.log":
            updates += 1
        elif frame.action == "acp.result":
            turns -= 1
            if not turns:
                return updates
    raise ConnectionError("The host closed the connection")
