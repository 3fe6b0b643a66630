"""How late a socket gets what agents say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from kandev_host.events import Event
from kandev_host.gateway.outbox import Outbox
from kandev_host.models import now


class Latency:
    """Tells `observe`, whenever the transport has taken all that waited, how old the oldest of it was."""

    __slots__ = ("_observe", "_oldest")

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._oldest: datetime | None = None

    def queued(self, event: Event) -> None:
        """This event goes to the outbox now."""
        if self._oldest is None and event.agent_id is not None and event.action.startswith("acp."):
            self._oldest = event.created_at

    def emptied(self) -> None:
        """Nothing waits any more."""
        if self._oldest is not None:
            late = (now() - self._oldest).total_seconds()
            self._oldest = None
            self._observe(max(late, 0.0))  # a clock that was set back makes nothing early


def watched(observe: Callable[[float], None] | None, outbox: Outbox) -> Callable[[Event], None] | None:
    """What is to hear of each live event that goes to this outbox; nothing where nobody measures."""
    if observe is None:
        return None
    latency = Latency(observe)
    outbox.on_emptied = latency.emptied
    return latency.queued
