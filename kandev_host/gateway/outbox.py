"""What waits to be sent on one socket: bounded in messages and bytes, and never waiting for the peer.

Frames are whole WebSocket frames (RFC 6455, unmasked), so that one notification is framed once for all its
subscribers, and so that many frames reach the kernel in one call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from struct import Struct

TEXT = 0x81
PONG = 0x8A
# Beyond this, the frames of one loop round go to the kernel before the round ends.
EAGER_BYTES = 128 << 10

_SHORT = Struct("!BB").pack
_MEDIUM = Struct("!BBH").pack
_LONG = Struct("!BBQ").pack


def wire(payload: bytes, opcode: int = TEXT) -> bytes:
    """The payload as one final, unmasked WebSocket frame."""
    length = len(payload)
    if length < 126:
        return _SHORT(opcode, length) + payload
    if length < 1 << 16:
        return _MEDIUM(opcode, 126, length) + payload
    return _LONG(opcode, 127, length) + payload


class Outbox:
    """The bounded queue in front of a transport.

    `put` refuses (False) when `limit_messages` or `limit_bytes` would be passed; one frame always fits an empty
    outbox. `paused` tells whether the transport's own buffer is full. `on_pause` is called whenever frames were
    written and the transport is full: somebody must then wait for it and call `flush` again. `on_emptied`, if set, is
    called when the transport has taken all that waited.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        paused: Callable[[], bool],
        on_pause: Callable[[], None],
        limit_messages: int,
        limit_bytes: int,
    ) -> None:
        self._transport = transport
        self._paused = paused
        self._on_pause = on_pause
        self._limit_messages = limit_messages
        self._limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()
        self._frames: deque[tuple[bytes, int | None]] = deque()
        self._bytes = 0
        self._scheduled: asyncio.Handle | None = None
        self._room: list[asyncio.Future[None]] = []
        self._shut = False
        self.delivered_seq = 0
        self.on_emptied: Callable[[], None] | None = None

    @property
    def crowded(self) -> bool:
        """More than half full: replies and replays wait, live events still go in."""
        return 2 * len(self._frames) > self._limit_messages or 2 * self._bytes > self._limit_bytes

    def put(self, frame: bytes, resume_seq: int | None = None, *, force: bool = False) -> bool:
        """Queue a frame. `resume_seq` is where a client that got this frame may resume.

        `force` passes the limits, for replies: their number is bounded by the requests that are worked on.
        """
        if self._shut:
            return True
        if len(self._frames) >= self._limit_messages or self._bytes + len(frame) > self._limit_bytes:
            self.flush()
            if not force and not self._fits(len(frame)):
                return False
        self._frames.append((frame, resume_seq))
        self._bytes += len(frame)
        if self._scheduled is None:
            self._scheduled = self._loop.call_soon(self.flush)
        elif self._bytes > EAGER_BYTES and not self._paused():
            self.flush()
        return True

    def flush(self) -> None:
        """Hand frames to the transport until none is left or its buffer is full."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        frames = self._frames
        while frames and not self._paused():
            self._write_some()
        if self._paused():
            self._on_pause()
        if self.on_emptied is not None and not frames:
            self.on_emptied()
        if self._room and not self.crowded:
            self._wake()

    def clear(self) -> None:
        """Forget what waits, and wake whoever waits for room."""
        self._frames.clear()
        self._bytes = 0
        self._wake()

    def shut(self) -> None:
        """Take no more: frames vanish from now on, and nobody waits."""
        self._shut = True
        self.clear()

    async def room(self, size: int = 0) -> None:
        """Wait until no more than half is taken and `size` bytes fit. The owner's stall timer bounds this."""
        while not self._shut and (self.crowded or not self._fits(size)):
            waiter = self._loop.create_future()
            self._room.append(waiter)
            await waiter

    def _fits(self, size: int) -> bool:
        if not self._frames:
            return True
        return len(self._frames) < self._limit_messages and self._bytes + size <= self._limit_bytes

    def _write_some(self) -> None:
        frames = self._frames
        batch: list[bytes] = []
        size = 0
        while frames and size < EAGER_BYTES:
            frame, resume_seq = frames.popleft()
            batch.append(frame)
            size += len(frame)
            if resume_seq is not None:
                self.delivered_seq = resume_seq
        self._bytes -= size
        if not self._transport.is_closing():
            self._transport.write(batch[0] if len(batch) == 1 else b"".join(batch))

    def _wake(self) -> None:
        waiters, self._room = self._room, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
