"""Who follows which shell, so that a shell's output waits for their sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import anyio

PREFIX = "shell:"
# Longer than a socket is given to read on before it is cut (gateway.slow_client_timeout_s); then it is gone from here.
ROOM_S = 60.0


class Listener(Protocol):
    """A socket, as a shell sees it."""

    async def room(self, size: int) -> None:
        """Wait until `size` bytes more may be sent to it, or it is cut."""
        ...


class Audience:
    """The listeners of one shell. `on_change` is called when somebody comes or goes."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._listeners: dict[int, Listener] = {}
        self._on_change = on_change

    def __len__(self) -> int:
        return len(self._listeners)

    def join(self, listener: Listener) -> None:
        self._listeners[id(listener)] = listener
        self._on_change()

    def leave(self, listener: Listener) -> None:
        if self._listeners.pop(id(listener), None) is not None:
            self._on_change()

    async def room(self, size: int) -> None:
        """Wait for the slowest of them: so a shell is as slow as they are, until they are cut for it."""
        for listener in tuple(self._listeners.values()):
            if id(listener) in self._listeners:
                with anyio.move_on_after(ROOM_S):
                    await listener.room(size)


class Audiences:
    """The audience of each open shell, by topic."""

    def __init__(self) -> None:
        self._known: dict[str, Audience] = {}

    def add(self, shell_id: str, audience: Audience) -> None:
        self._known[PREFIX + shell_id] = audience

    def discard(self, shell_id: str) -> None:
        self._known.pop(PREFIX + shell_id, None)

    def join(self, topic: str, listener: Listener) -> None:
        """A socket follows this topic now; nothing if that is no open shell."""
        if (audience := self._known.get(topic)) is not None:
            audience.join(listener)

    def leave(self, topic: str, listener: Listener) -> None:
        """It does so no more."""
        if (audience := self._known.get(topic)) is not None:
            audience.leave(listener)
