"""The in-memory bus, which relays events inside this process."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from kandev_host.events import Event, Sink
from kandev_host.interfaces import Bus

logger = logging.getLogger(__name__)


class MemorySubscription:
    """One subscriber's topics. Closing it, also twice, ends the deliveries at once, also within a `publish`."""

    def __init__(self, bus: MemoryBus, sink: Sink) -> None:
        self._bus = bus
        self.sink = sink
        self.topics: set[str] = set()

    def add(self, topic: str) -> None:
        self.topics.add(topic)
        self._bus.members[topic].add(self)
        self._bus.version += 1

    def discard(self, topic: str) -> None:
        self.topics.discard(topic)
        members = self._bus.members.get(topic)
        if members is not None:
            members.discard(self)
            self._bus.version += 1
            if not members:
                del self._bus.members[topic]

    def close(self) -> None:
        for topic in tuple(self.topics):
            self.discard(topic)


class MemoryBus:
    """Delivers inside this process, in order, at most once per subscription. Sinks must neither block nor raise.

    One that raises all the same is logged and closed; the others get their events.
    """

    def __init__(self) -> None:
        self.members: dict[str, set[MemorySubscription]] = defaultdict(set)
        self.version = 0

    @property
    def subscriptions(self) -> int:
        """How many have a topic."""
        return len(set().union(*self.members.values()))

    def subscribe(self, topics: Iterable[str], sink: Sink) -> MemorySubscription:
        subscription = MemorySubscription(self, sink)
        for topic in topics:
            subscription.add(topic)
        return subscription

    def publish(self, events: Sequence[Event]) -> None:
        # Neighbours mostly have the same topics: who hears them is found once, until somebody comes or goes.
        found: dict[tuple[str | bool | None, ...], list[MemorySubscription]] = {}
        version = self.version
        for item in events:
            if version != self.version:
                found, version = {}, self.version
            key = (item.task_id, item.board_id, item.agent_id, item.shell_id, item.to_all)
            audience = found.get(key)
            if audience is None:
                audience = found[key] = self._audience(item)
            for subscription in audience:
                if subscription.topics:
                    try:
                        subscription.sink(item)
                    except Exception:
                        logger.exception("A subscriber failed on %s and is cut", item.action)
                        subscription.close()

    def _audience(self, item: Event) -> list[MemorySubscription]:
        audience: set[MemorySubscription] = set()
        for topic in item.topics():
            audience |= self.members.get(topic, _NOBODY)
        return list(audience)


_NOBODY: frozenset[MemorySubscription] = frozenset()


@asynccontextmanager
async def open_memory_bus() -> AsyncIterator[Bus]:
    """The default bus, as a provider opens it."""
    yield MemoryBus()
