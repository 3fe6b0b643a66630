"""Named loopback services: a listener on 127.0.0.1:PORT *inside* the jail's network, forwarded by the host.

The listening socket is made inside the jail's network namespace and kept by the host: there is no relay process,
no socket file and no route, and the command cannot reach any other port.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from kandev_sandbox import netns
from kandev_sandbox.errors import ForwardFailed

MAX_CONNECTIONS = 64
CONNECT_TIMEOUT_S = 5.0
_CHUNK_BYTES = 65536


async def listen_inside(pid: int, ports: Sequence[int]) -> list[socket.socket]:
    """A listening socket on each loopback port of the network namespace of `pid`. Raises `ForwardFailed`."""
    try:
        return await anyio.to_thread.run_sync(netns.listen, pid, list(ports))
    except OSError as error:
        raise ForwardFailed(f"No listener could be made in the jail's network: {error}.") from error


@asynccontextmanager
async def forwarding(listeners: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Forward every connection to the same port on the host's loopback until the context is left.

    At most 64 connections per service at a time; more wait in the listener's backlog.
    """
    try:
        async with anyio.create_task_group() as group:
            for listener in listeners:
                group.start_soon(_serve, listener)
            yield
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        # The caller's own error, not one in a group that only exists because a service was forwarded.
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        raise
    finally:
        for listener in listeners:
            listener.close()


async def _serve(listener: socket.socket) -> None:
    port: int = listener.getsockname()[1]
    slots = anyio.Semaphore(MAX_CONNECTIONS)
    async with anyio.create_task_group() as group:
        while True:
            await slots.acquire()
            group.start_soon(_connection, await _accept(listener), port, slots)


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        await anyio.wait_readable(listener)
        try:
            return listener.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            continue


async def _connection(inner: socket.socket, port: int, slots: anyio.Semaphore) -> None:
    try:
        with inner, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as outer:
            inner.setblocking(False)
            outer.setblocking(False)
            if not await _dial(outer, port):
                return
            async with anyio.create_task_group() as group:
                group.start_soon(_copy, inner, outer, group.cancel_scope)
                group.start_soon(_copy, outer, inner, group.cancel_scope)
    finally:
        slots.release()


async def _dial(outer: socket.socket, port: int) -> bool:
    """False if nobody listens there: the jail's connection is then closed, which is all a client needs to know."""
    with anyio.move_on_after(CONNECT_TIMEOUT_S):
        try:
            outer.connect(("127.0.0.1", port))
        except BlockingIOError:
            await anyio.wait_writable(outer)
        except OSError:
            return False
        return outer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    return False


async def _copy(source: socket.socket, target: socket.socket, both: anyio.CancelScope) -> None:
    """Copy one direction. Its end is passed on as a half-close; an error ends both directions."""
    try:
        while received := await _receive(source):
            await _send(target, received)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        both.cancel()


async def _receive(source: socket.socket) -> bytes:
    while True:
        try:
            return source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            await anyio.wait_readable(source)


async def _send(target: socket.socket, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[target.send(rest) :]
        except BlockingIOError:
            await anyio.wait_writable(target)
