"""Named loopback services: a listener on 127.0.0.1:PORT *inside* the jail's network, forwarded by the host.

The listening socket is made inside the jail's network namespace and kept by the host: there is no relay process,
no socket file and no route, and the command cannot reach any other port.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing

import anyio

from kandev_sandbox import netns, sockets
from kandev_sandbox.errors import ForwardFailed
from kandev_sandbox.sockets import Stream

MAX_CONNECTIONS = 64
CONNECT_TIMEOUT_S = 5.0
_LOOPBACK = "127.0.0.1"


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
            group.start_soon(_connection, await sockets.accept(listener), port, slots)


async def _connection(accepted: socket.socket, port: int, slots: anyio.Semaphore) -> None:
    try:
        with closing(Stream(accepted)) as inner:
            try:
                outer = await sockets.dial(_LOOPBACK, port, CONNECT_TIMEOUT_S)
            except OSError:  # nobody listens there: a closed connection is all that a client needs to know
                return
            with closing(Stream(outer)) as dialled:
                await sockets.relay(inner, dialled)
    finally:
        slots.release()
