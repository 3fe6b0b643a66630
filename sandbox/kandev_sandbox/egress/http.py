"""The proxy's HTTP side: CONNECT tunnels, and single requests for http:// addresses.

One request for each connection: whatever comes after it is not read. A body goes on by its own framing, so that no
second request can hide in it.
"""

from __future__ import annotations

import re
from contextlib import suppress

import anyio

from kandev_sandbox import sockets
from kandev_sandbox.egress import requests
from kandev_sandbox.egress.decisions import Refused, Unreachable
from kandev_sandbox.egress.gate import Gate
from kandev_sandbox.egress.requests import BadRequest, Request
from kandev_sandbox.sockets import Idle, Stream, TooLong

HEAD_TIMEOUT_S = 15.0
IDLE_S = 900.0
LINGER_S = 2.0
_LINE_BYTES = 1024
_TRAILERS = 64
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[\x20-\x7e\t]*)?\r\n")
_STATUS = {"name": 502, "refused": 502, "network": 502, "timeout": 504, "busy": 503}
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def serve(client: Stream, gate: Gate) -> None:
    """One connection from a jail, to its end. Raises `OSError` when the client is gone."""
    try:
        request = await _asked(client)
        async with gate.open(request.host, request.port, "connect" if request.connect else "http") as server:
            await _serve(client, server, request)
    except EOFError:
        pass
    except BadRequest as error:
        await refuse(client, error.status, str(error))
    except Refused as error:
        await refuse(client, 403, str(error))
    except Unreachable as error:
        await refuse(client, _STATUS[error.kind], str(error))


async def _asked(client: Stream) -> Request:
    """Raises `BadRequest`, and `EOFError` when the client closes first."""
    try:
        with anyio.fail_after(HEAD_TIMEOUT_S):
            return requests.parse(await client.receive_until(b"\r\n\r\n", requests.HEAD_BYTES))
    except TimeoutError as error:
        raise BadRequest("no request came in time", 408) from error
    except TooLong as error:
        raise BadRequest("the head of the request is too long", 431) from error


async def _serve(client: Stream, server: Stream, request: Request) -> None:
    if request.connect:
        await client.send(_ESTABLISHED)
        await sockets.relay(client, server, IDLE_S)
    else:
        await _exchange(client, server, request)


async def refuse(client: Stream, status: int, words: str) -> None:
    """Answer, in the reason phrase as well: clients do not show the body of a refused CONNECT. Raises `OSError`."""
    body = f"kandev jail: {words}\n".encode("ascii", "backslashreplace")
    phrase = words.encode("ascii", "backslashreplace")
    await client.send(
        b"HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
        % (status, phrase, len(body), body)
    )
    client.end()
    # What the client still sends is read and dropped for a moment: a reset would take the answer with it.
    with anyio.move_on_after(LINGER_S):
        while await client.receive():
            pass


async def _exchange(client: Stream, server: Stream, request: Request) -> None:
    """Send the one request, and bring the answer until the server closes."""
    idle = Idle(IDLE_S)
    with idle.scope:
        async with anyio.create_task_group() as group:
            group.start_soon(_send_request, client, server, request, idle, group.cancel_scope)
            with suppress(OSError):  # one of them is gone, and with it the exchange
                await sockets.copy(server, client, idle)
            group.cancel_scope.cancel()


async def _send_request(
    client: Stream, server: Stream, request: Request, idle: Idle, exchange: anyio.CancelScope
) -> None:
    try:
        await server.send(request.head)
        if request.length is None:
            await _send_chunks(client, server, idle)
        else:
            await _send_body(client, server, request.length, idle)
    except (OSError, EOFError, TooLong, BadRequest):
        exchange.cancel()


async def _send_body(client: Stream, server: Stream, length: int, idle: Idle) -> None:
    while length > 0:
        found = await client.receive_some(length)
        if not found:
            raise EOFError
        await server.send(found)
        length -= len(found)
        idle.moved()


async def _send_chunks(client: Stream, server: Stream, idle: Idle) -> None:
    """RFC 9112, 7.1, without extensions and trailers."""
    while size := await _chunk_size(client):
        await server.send(b"%x\r\n" % size)
        await _send_body(client, server, size, idle)
        if await client.receive_exactly(2) != b"\r\n":
            raise BadRequest("a chunk is longer than it says")
        await server.send(b"\r\n")
    for _ in range(_TRAILERS):
        if await client.receive_until(b"\r\n", _LINE_BYTES) == b"\r\n":
            return await server.send(b"0\r\n\r\n")
    raise BadRequest("too many trailers")


async def _chunk_size(client: Stream) -> int:
    found = _CHUNK.fullmatch(await client.receive_until(b"\r\n", _LINE_BYTES))
    if found is None:
        raise BadRequest("this is no chunk")
    return int(found[1], 16)
