"""Connected sockets of the host and of jails, read and written without blocking."""

from __future__ import annotations

import errno
import socket

import anyio
import anyio.lowlevel

CHUNK_BYTES = 65536
_REST_S = 0.1
# Out of descriptors or of memory for now: the connection waits in the backlog.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class TooLong(Exception):
    """What was waited for did not come within its bound."""


class Stream:
    """One socket with a buffer for what was received too early. Counts bytes both ways. Owns the socket."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.received_bytes = 0
        self.sent_bytes = 0
        self._early = bytearray()

    def close(self) -> None:
        self.socket.close()

    async def receive(self) -> bytes:
        """What is there, waiting for some; b"" at the end. Raises `OSError`."""
        # Also where nothing has to be waited for: two fast ends must not keep the loop to themselves.
        await anyio.lowlevel.checkpoint()
        if self._early:
            found, self._early = bytes(self._early), bytearray()
            return found
        while True:
            try:
                found = self.socket.recv(CHUNK_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self.socket)
                continue
            self.received_bytes += len(found)
            return found

    async def receive_some(self, limit: int) -> bytes:
        """At most `limit` bytes; b"" at the end. Raises `OSError`."""
        found = await self.receive()
        self._early[:0] = found[limit:]
        return found[:limit]

    async def receive_exactly(self, count: int) -> bytes:
        """Raises `EOFError` when the other end closes before."""
        found = b""
        while len(found) < count:
            more = await self.receive_some(count - len(found))
            if not more:
                raise EOFError
            found += more
        return found

    async def receive_until(self, end: bytes, limit: int) -> bytes:
        """Up to and with `end`. Raises `TooLong`, and `EOFError` when the other end closes before."""
        found = bytearray()
        while True:
            searched = max(0, len(found) - len(end) + 1)
            more = await self.receive()
            if not more:
                raise EOFError
            found += more
            place = found.find(end, searched, limit + len(end))
            if place >= 0:
                self._early[:0] = found[place + len(end) :]
                return bytes(found[: place + len(end)])
            if len(found) >= limit + len(end):
                raise TooLong

    async def send(self, content: bytes) -> None:
        """All of it, waiting while the other end does not read. Raises `OSError`."""
        rest = memoryview(content)
        while rest:
            try:
                count = self.socket.send(rest)
            except BlockingIOError:
                await anyio.wait_writable(self.socket)
                continue
            self.sent_bytes += count
            rest = rest[count:]

    def end(self) -> None:
        """Say that nothing more is sent. Raises `OSError`."""
        self.socket.shutdown(socket.SHUT_WR)


async def accept(listener: socket.socket) -> socket.socket:
    """The next connection, however long none comes or none can be had."""
    while True:
        await anyio.wait_readable(listener)
        try:
            return listener.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            continue
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            await anyio.sleep(_REST_S)


async def dial(address: str, port: int, timeout_s: float) -> socket.socket:
    """A connection to this very address. Raises `OSError`, `TimeoutError` among them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        with anyio.fail_after(timeout_s):
            await _connect(connecting, (address, port))
    except BaseException:
        connecting.close()
        raise
    return connecting


async def _connect(connecting: socket.socket, target: tuple[str, int]) -> None:
    try:
        connecting.connect(target)
    except BlockingIOError:
        await anyio.wait_writable(connecting)
        number = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, errno.errorcode.get(number, "")) from None


class Idle:
    """A scope that is cancelled when nothing has moved for `idle_s`, to within a tenth; with None, never."""

    def __init__(self, idle_s: float | None) -> None:
        self._idle_s = idle_s
        self.scope = anyio.CancelScope()
        self._set_at = float("-inf")
        self.moved()

    def moved(self) -> None:
        now = anyio.current_time()
        if self._idle_s is not None and now - self._set_at > self._idle_s / 10:  # not for every chunk
            self._set_at = now
            self.scope.deadline = now + self._idle_s * 1.1


async def relay(one: Stream, other: Stream, idle_s: float | None = None) -> None:
    """Copy both directions until both have ended, one is broken, or nothing moved for `idle_s`."""
    idle = Idle(idle_s)
    with idle.scope:
        async with anyio.create_task_group() as group:
            group.start_soon(_copy_or_end, one, other, idle, group.cancel_scope)
            group.start_soon(_copy_or_end, other, one, idle, group.cancel_scope)


async def copy(source: Stream, target: Stream, idle: Idle) -> None:
    """Copy one direction until its end, which is passed on as a half-close. Raises `OSError`."""
    while received := await source.receive():
        await target.send(received)
        idle.moved()
    target.end()


async def _copy_or_end(source: Stream, target: Stream, idle: Idle, both: anyio.CancelScope) -> None:
    try:
        await copy(source, target, idle)
    except OSError:
        both.cancel()
