"""Durable events and the in-memory bus that relays them after commit."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from kandev_host.models import new_id, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kandev_host.interfaces import Bus

Sink = Callable[["Event"], None]
ALL = "*"
logger = logging.getLogger(__name__)


class Event(msgspec.Struct, kw_only=True):
    """Something that happened. The journal gives a durable event its `seq` at commit; a transient one has none.

    `action` is the notification's name on the wire (`task.created`, `acp.log`); `payload` is its JSON, encoded
    once for every subscriber and for the store. The ids say which topics it belongs to.
    """

    action: str
    payload: msgspec.Raw
    id: str = msgspec.field(default_factory=new_id)
    seq: int | None = None
    actor: str = "host"
    board_id: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    turn_id: str | None = None
    created_at: datetime = msgspec.field(default_factory=now)

    def topics(self) -> tuple[str, ...]:
        """Every topic of the protocol that this event belongs to, `*` last."""
        named = (("task:", self.task_id), ("board:", self.board_id), ("agent:", self.agent_id))
        return (*(prefix + value for prefix, value in named if value is not None), ALL)


_encoder = msgspec.json.Encoder()


def event(action: str, payload: Any, **fields: Any) -> Event:
    """An event whose payload (a struct or a dict) is encoded here and now."""
    return Event(action=action, payload=msgspec.Raw(_encoder.encode(payload)), **fields)


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

    def subscribe(self, topics: Iterable[str], sink: Sink) -> MemorySubscription:
        subscription = MemorySubscription(self, sink)
        for topic in topics:
            subscription.add(topic)
        return subscription

    def publish(self, events: Sequence[Event]) -> None:
        # Neighbours mostly have the same topics: who hears them is found once, until somebody comes or goes.
        found: dict[tuple[str | None, ...], list[MemorySubscription]] = {}
        version = self.version
        for item in events:
            if version != self.version:
                found, version = {}, self.version
            key = (item.task_id, item.board_id, item.agent_id)
            audience = found.get(key)
            if audience is None:
                audience = found[key] = self._audience(item)
            for subscription in audience:
                if subscription.topics:
                    self._deliver(subscription, item)

    def _audience(self, item: Event) -> list[MemorySubscription]:
        audience: set[MemorySubscription] = set()
        for topic in item.topics():
            audience |= self.members.get(topic, _NOBODY)
        return list(audience)

    def _deliver(self, subscription: MemorySubscription, item: Event) -> None:
        try:
            subscription.sink(item)
        except Exception:
            logger.exception("A subscriber failed on %s and is cut", item.action)
            subscription.close()


_NOBODY: frozenset[MemorySubscription] = frozenset()


def open_memory_bus(_settings: object = None) -> AbstractAsyncContextManager[Bus]:
    """The default bus, as a provider opens it."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Bus]:
        yield MemoryBus()

    return opened()
