"""Locks by name, so that changes to one board or one task happen one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio


class Locks:
    """One lock per name, kept only while someone holds it or waits for it.

    Order, where several are needed: `dependencies`, `task:<id>`, `board:<id>`. Nothing is called back while one is
    held that would take an earlier one.
    """

    def __init__(self) -> None:
        self._locks: dict[str, anyio.Lock] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, *names: str) -> AsyncIterator[None]:
        """All of them, taken in the order given."""
        async with AsyncExitStack() as held:
            for name in names:
                await held.enter_async_context(self._hold(name))
            yield

    @asynccontextmanager
    async def _hold(self, name: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(name, anyio.Lock())
        self._users[name] = self._users.get(name, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name], self._locks[name]
