"""What goes over the bus, and how late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from kandev_host.events import Event, Sink
from kandev_host.interfaces import Bus, Subscription, Telemetry
from kandev_host.metrics import OTHER
from kandev_host.models import now
from kandev_host.protocol.notifications import NOTIFICATIONS


class BusTap:
    """The bus, with a look at each batch after it was published."""

    def __init__(self, bus: Bus, telemetry: Telemetry) -> None:
        self._bus = bus
        self._telemetry = telemetry
        self._labels = {name: {"event": name} for name in (*NOTIFICATIONS, OTHER)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def subscribe(self, topics: Iterable[str], sink: Sink) -> Subscription:
        return self._bus.subscribe(topics, sink)

    def publish(self, events: Sequence[Event]) -> None:
        self._bus.publish(events)
        if not events:
            return
        labels = self._labels
        for name, number in Counter([each.action for each in events]).items():
            self._telemetry.count("kandev_bus_events_total", number, labels.get(name) or labels[OTHER])
        # A clock that was set back made no event earlier than now.
        late = (now() - events[0].created_at).total_seconds()
        self._telemetry.observe("kandev_bus_lag_seconds", max(late, 0.0), {})
