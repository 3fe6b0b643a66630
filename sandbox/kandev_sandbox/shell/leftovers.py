"""Outputs that background jobs still hold after their command has ended: read and dropped, so that they go on."""

from __future__ import annotations

import os
import select

import anyio

MAX_HELD = 128
_CHUNK_BYTES = 64 << 10
_PAUSE_S = 0.005


class Leftovers:
    """At most 128 outputs; beyond that the oldest is closed, and whoever still writes to it gets SIGPIPE."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._held: dict[int, None] = {}

    def add(self, descriptor: int) -> None:
        """Take over a reading end, which never blocks."""
        while len(self._held) >= MAX_HELD:
            self._drop(next(iter(self._held)))
        self._held[descriptor] = None
        self._poll.register(descriptor, select.EPOLLIN)

    async def drain(self) -> None:
        """Until cancelled. A job that floods is slowed to some megabytes a second: it costs this side little."""
        while True:
            await anyio.wait_readable(self._poll.fileno())
            for descriptor, _ in self._poll.poll(0):
                try:
                    if not os.read(descriptor, _CHUNK_BYTES):
                        self._drop(descriptor)
                except BlockingIOError:
                    continue
            await anyio.sleep(_PAUSE_S)

    def close(self) -> None:
        for descriptor in list(self._held):
            self._drop(descriptor)
        self._poll.close()

    def _drop(self, descriptor: int) -> None:
        del self._held[descriptor]
        self._poll.unregister(descriptor)
        os.close(descriptor)
