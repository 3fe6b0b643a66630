"""Durable events and the in-memory bus that relays them after commit."""

from __future__ import annotations

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
    """One subscriber's topics. Closing it, also twice, ends the deliveries at once."""

    def __init__(self, bus: MemoryBus, sink: Sink) -> None:
        self._bus = bus
        self.sink = sink
        self.topics: set[str] = set()

    def add(self, topic: str) -> None:
        self.topics.add(topic)
        self._bus.members[topic].add(self)

    def discard(self, topic: str) -> None:
        self.topics.discard(topic)
        members = self._bus.members.get(topic)
        if members is not None:
            members.discard(self)
            if not members:
                del self._bus.members[topic]

    def close(self) -> None:
        for topic in tuple(self.topics):
            self.discard(topic)


class MemoryBus:
    """Delivers inside this process, in order, at most once per subscription. Sinks must neither block nor raise."""

    def __init__(self) -> None:
        self.members: dict[str, set[MemorySubscription]] = defaultdict(set)

    def subscribe(self, topics: Iterable[str], sink: Sink) -> MemorySubscription:
        subscription = MemorySubscription(self, sink)
        for topic in topics:
            subscription.add(topic)
        return subscription

    def publish(self, events: Sequence[Event]) -> None:
        members = self.members
        for item in events:
            found: set[MemorySubscription] = set()
            for topic in item.topics():
                if topic in members:
                    found |= members[topic]
            for subscription in found:
                subscription.sink(item)


def open_memory_bus(_settings: object = None) -> AbstractAsyncContextManager[Bus]:
    """The default bus, as a provider opens it."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Bus]:
        yield MemoryBus()

    return opened()
