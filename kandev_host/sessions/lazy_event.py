"""An event that is a mere flag until somebody waits for it: an agent has many, and most are waited for at its end."""

from __future__ import annotations

import anyio
import anyio.lowlevel


class LazyEvent:
    """As `anyio.Event`, which holds 0.9 KiB from its first moment."""

    __slots__ = ("_awaited", "_set")

    def __init__(self) -> None:
        self._set = False
        self._awaited: anyio.Event | None = None

    def set(self) -> None:
        self._set = True
        if self._awaited is not None:
            self._awaited.set()

    def is_set(self) -> bool:
        return self._set

    async def wait(self) -> None:
        if self._set:
            await anyio.lowlevel.checkpoint()
            return
        if self._awaited is None:
            self._awaited = anyio.Event()
        await self._awaited.wait()
