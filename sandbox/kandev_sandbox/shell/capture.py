"""The head and the tail of a stream of any length, in bounded memory."""

from __future__ import annotations


class Capture:
    """Keeps at most `limit_bytes`, the first half and the last; `total` counts all. Holds up to 1.5 times that."""

    def __init__(self, limit_bytes: int) -> None:
        self.total = 0
        self._head_bytes = limit_bytes - limit_bytes // 2
        self._tail_bytes = limit_bytes // 2
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = self._head_bytes - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        if len(chunk) >= self._tail_bytes:
            self._tail[:] = chunk[len(chunk) - self._tail_bytes :]
            return
        self._tail += chunk
        # In steps of half a limit, so that a stream of single bytes does not move the whole tail for each.
        if len(self._tail) > 2 * self._tail_bytes:
            del self._tail[: len(self._tail) - self._tail_bytes]

    def value(self) -> bytes:
        """What is kept, in order; shorter than `total` if the middle was dropped."""
        return bytes(self._head + self._tail[max(0, len(self._tail) - self._tail_bytes) :])
