"""The proxy's SOCKS side: version 5, CONNECT alone, without authentication (RFC 1928); names are resolved here."""

from __future__ import annotations

import socket

import anyio

from kandev_sandbox import sockets
from kandev_sandbox.egress.decisions import Refused, Unreachable
from kandev_sandbox.egress.gate import Gate
from kandev_sandbox.egress.http import HEAD_TIMEOUT_S, IDLE_S
from kandev_sandbox.sockets import Stream

VERSION = 5
_NO_AUTHENTICATION, _NO_METHOD = 0, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
SUCCEEDED, FAILED, NOT_ALLOWED, NETWORK, HOST, REFUSED, COMMAND, ADDRESS = 0, 1, 2, 3, 4, 5, 7, 8
_CODES = {"name": HOST, "refused": REFUSED, "network": NETWORK, "timeout": HOST, "busy": FAILED}


class _Malformed(Exception):
    """Not what SOCKS 5 says; `answer` is what the client gets before the end."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__()
        self.answer = answer


async def serve(client: Stream, gate: Gate) -> None:
    """One connection from a jail, to its end. Raises `OSError` when the client is gone."""
    try:
        with anyio.fail_after(HEAD_TIMEOUT_S):
            await _greet(client)
            host, port = await _asked(client)
    except (EOFError, TimeoutError):
        return
    except _Malformed as error:
        await client.send(error.answer)
        return
    try:
        async with gate.open(host, port, "socks5") as server:
            await client.send(_reply(SUCCEEDED))
            await sockets.relay(client, server, IDLE_S)
    except Refused:
        await client.send(_reply(NOT_ALLOWED))
    except Unreachable as error:
        await client.send(_reply(_CODES[error.kind]))


async def _greet(client: Stream) -> None:
    version, count = await client.receive_exactly(2)
    if version != VERSION:
        raise _Malformed
    methods = await client.receive_exactly(count)
    if _NO_AUTHENTICATION not in methods:
        raise _Malformed(bytes((VERSION, _NO_METHOD)))
    await client.send(bytes((VERSION, _NO_AUTHENTICATION)))


async def _asked(client: Stream) -> tuple[str, int]:
    version, command, _, kind = await client.receive_exactly(4)
    if version != VERSION:
        raise _Malformed
    host = await _host(client, kind)
    port = int.from_bytes(await client.receive_exactly(2))
    if command != _CONNECT:
        raise _Malformed(_reply(COMMAND))
    if port == 0 or not host:
        raise _Malformed(_reply(FAILED))
    return host, port


async def _host(client: Stream, kind: int) -> str:
    if kind == _IPV4:
        return socket.inet_ntop(socket.AF_INET, await client.receive_exactly(4))
    if kind == _IPV6:
        return socket.inet_ntop(socket.AF_INET6, await client.receive_exactly(16))
    if kind == _NAME:
        (length,) = await client.receive_exactly(1)
        return (await client.receive_exactly(length)).decode("latin-1")
    raise _Malformed(_reply(ADDRESS))


def _reply(code: int) -> bytes:
    return bytes((VERSION, code, 0, _IPV4, 0, 0, 0, 0, 0, 0))
