"""Lines that a person types while something else goes on, without a thread."""

from __future__ import annotations

import os
import sys

import anyio
import anyio.lowlevel

READ_BYTES = 65_536
LINE_BYTES = 1 << 20


class Keyboard:
    """Standard input, a line at a time.

    A thread blocked in a read could be neither cancelled nor joined, so the descriptor is waited for instead: whoever
    waits may be cancelled, and a line that comes later is there for the next one who asks.
    """

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._held = b""
        self._ended = False

    async def line(self) -> str | None:
        """The next line without its newline; None once the input has ended."""
        while b"\n" not in self._held and len(self._held) < LINE_BYTES and not self._ended:
            await self._readable()
            read = os.read(self._descriptor, READ_BYTES)
            self._held += read
            self._ended = not read
        if not self._held:
            return None
        line, _, self._held = self._held.partition(b"\n")
        return line.decode("utf-8", "replace").rstrip("\r")

    async def _readable(self) -> None:
        try:
            await anyio.wait_readable(self._descriptor)
        except PermissionError:  # a file: it cannot be waited for (epoll_ctl), and need not be
            await anyio.lowlevel.checkpoint()
