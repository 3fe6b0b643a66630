"""Store and bus with a look at what goes through them, kept in memory: when it last went well, and why it did not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from kandev_host.errors import KandevError
from kandev_host.models import now

if TYPE_CHECKING:
    from kandev_host.events import Event, Sink
    from kandev_host.interfaces import Bus, Commit, Store, Subscription


class Writes(msgspec.Struct):
    """What the store said of the last writes. `failed` is of `failed_s` on the monotonic clock; None: it went well."""

    committed_at: datetime | None = None
    failed: str | None = None
    failed_s: float = 0.0


class WatchedStore:
    """The store; `writes` is told of each group of commits."""

    def __init__(self, store: Store, writes: Writes) -> None:
        self._store = store
        self._writes = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Sequence[int] | KandevError]:
        writes = self._writes
        try:
            outcomes = await self._store.commit(commits)
        except Exception as error:
            writes.failed = error.message if isinstance(error, KandevError) else f"unexpected {type(error).__name__}"
            writes.failed_s = time.monotonic()
            raise
        if any(commit.changes for commit in commits):  # one without changes only asks whether somebody answers
            writes.committed_at = now()
            writes.failed = None
        return outcomes


class WatchedBus:
    """The bus; `lag_s` is how old the last events were when it had delivered them, None before the first."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.lag_s: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    @property
    def subscriptions(self) -> int | None:
        """How many subscribers it has; None where the bus does not say."""
        found = getattr(self._bus, "subscriptions", None)
        return found if isinstance(found, int) else None

    def subscribe(self, topics: Iterable[str], sink: Sink) -> Subscription:
        return self._bus.subscribe(topics, sink)

    def publish(self, events: Sequence[Event]) -> None:
        self._bus.publish(events)
        if events:
            # A clock that was set back made no event earlier than now.
            self.lag_s = max((now() - events[0].created_at).total_seconds(), 0.0)
