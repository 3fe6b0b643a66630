"""Locks by name, so that changes to one board or one task happen one after the other."""

from __future__ import annotations

import asyncio
from types import TracebackType


class _Lock(asyncio.Lock):
    """asyncio's own: taking a free one of anyio's costs a task switch, and every change of a task takes one."""

    users = 0


class Locks:
    """One lock per name, kept only while someone holds it or waits for it.

    Order, where several are needed: `dependencies`, `task:<id>`, `board:<id>`. Nothing is called back while one is
    held that would take an earlier one.
    """

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    def hold(self, *names: str) -> Held:
        """All of them, taken in the order given, for an `async with`."""
        return Held(self._locks, names)


class Held:
    """Some locks, while within it."""

    __slots__ = ("_held", "_locks", "_names")

    def __init__(self, locks: dict[str, _Lock], names: tuple[str, ...]) -> None:
        self._locks = locks
        self._names = names
        self._held: list[str] = []

    async def __aenter__(self) -> None:
        try:
            for name in self._names:
                await self._take(name)
        except BaseException:
            self._release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    async def _take(self, name: str) -> None:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = _Lock()
        lock.users += 1
        try:
            await lock.acquire()
        except BaseException:
            self._leave(name, lock)
            raise
        self._held.append(name)

    def _release(self) -> None:
        while self._held:
            name = self._held.pop()
            lock = self._locks[name]
            lock.release()
            self._leave(name, lock)

    def _leave(self, name: str, lock: _Lock) -> None:
        lock.users -= 1
        if not lock.users:
            del self._locks[name]
