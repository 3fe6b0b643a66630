"""Serving the two listeners of one jail's proxy."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing

import anyio

from kandev_sandbox import sockets
from kandev_sandbox.egress import http, socks
from kandev_sandbox.egress.gate import Gate
from kandev_sandbox.sockets import Stream

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 128
MAX_ALL_CONNECTIONS = 8192  # of all jails: each takes two descriptors of the host

Serve = Callable[[Stream, Gate], Awaitable[None]]


class _Total:
    """How many connections all jails of this process have now."""

    connections = 0


@asynccontextmanager
async def serving(http_listener: socket.socket, socks_listener: socket.socket, gate: Gate) -> AsyncIterator[None]:
    """Serve both until the context is left; then every connection is closed. Closes the listeners.

    At most 128 connections of one jail at a time; more wait in the listeners' backlogs.
    """
    slots = anyio.Semaphore(MAX_CONNECTIONS)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_accepting, http_listener, http.serve, gate, slots)
            group.start_soon(_accepting, socks_listener, socks.serve, gate, slots)
            yield
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        # The caller's own error, not one in a group that only exists because a proxy was served.
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        raise
    finally:
        http_listener.close()
        socks_listener.close()


async def _accepting(listener: socket.socket, serve: Serve, gate: Gate, slots: anyio.Semaphore) -> None:
    async with anyio.create_task_group() as group:
        while True:
            await slots.acquire()
            group.start_soon(_connection, await sockets.accept(listener), serve, gate, slots)


async def _connection(accepted: socket.socket, serve: Serve, gate: Gate, slots: anyio.Semaphore) -> None:
    _Total.connections += 1
    try:
        with closing(Stream(accepted)) as client:
            if _Total.connections <= MAX_ALL_CONNECTIONS:
                await serve(client, gate)
    except OSError:
        pass  # the client is gone
    except Exception:
        log.exception("A connection of a jail's proxy broke")  # a fault of ours costs this connection alone
    finally:
        _Total.connections -= 1
        slots.release()
