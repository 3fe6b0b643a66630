"""What a host measures, at the seams of the house: store, bus, runtimes, actions, agents' pipes and sockets.

Only a host that has telemetry has this; for others everything is as it was made (`Unmetered`), and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from kandev_host.interfaces import Action, Bus, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.metering.actions import timed
from kandev_host.metering.bus import BusTap
from kandev_host.metering.journal import TracedJournal
from kandev_host.metering.readings import Agents, Readings, Sockets, Writing
from kandev_host.metering.recorder import Recorder
from kandev_host.metering.runtimes import RuntimeTap
from kandev_host.metering.store import StoreTap
from kandev_host.metrics import OTHER
from kandev_host.sessions.counted import METHODS, Tally
from kandev_host.telemetry import FanOut

__all__ = ["Metering", "Unmetered", "metering"]

LATENCY = "kandev_agent_to_socket_latency_seconds"


class Unmetered:
    """Nobody measures."""

    tally: Tally | None = None
    latency: Callable[[float], None] | None = None

    def store(self, store: Store) -> Store:
        return store

    def bus(self, bus: Bus) -> Bus:
        return bus

    def journal(self, system: str) -> Callable[..., Journal]:
        """What makes the journal; `system` is the store's name in the settings."""
        del system
        return Journal

    def runtimes(self, runtimes: dict[str, Runtime]) -> dict[str, Runtime]:
        return runtimes

    def actions(self, actions: list[Action[Any]]) -> list[Action[Any]]:
        return actions

    def watch(self, *, store: Store, journal: Writing, agents: Agents, gateway: Sockets) -> None:
        """The host stands: gauges may be read."""


class Metering(Unmetered):
    """Hands each part back with a tap on it; `recorder` knows what the committed rows said."""

    def __init__(self, telemetry: FanOut, agent_types: Iterable[str]) -> None:
        self._telemetry = telemetry
        self.recorder = Recorder(telemetry, agent_types)
        self.tally = self._tally
        self.latency = self._latency

    def store(self, store: Store) -> Store:
        return cast("Store", StoreTap(store, self._telemetry, self.recorder))

    def bus(self, bus: Bus) -> Bus:
        return BusTap(bus, self._telemetry)

    def journal(self, system: str) -> Callable[..., Journal]:
        return Journal if self._telemetry.tracer is None else partial(TracedJournal, system=system)

    def runtimes(self, runtimes: dict[str, Runtime]) -> dict[str, Runtime]:
        tapped = {name: RuntimeTap(runtime, name, self._telemetry) for name, runtime in runtimes.items()}
        return cast("dict[str, Runtime]", tapped)

    def actions(self, actions: list[Action[Any]]) -> list[Action[Any]]:
        return [timed(action, self._telemetry) for action in actions]

    def watch(self, *, store: Store, journal: Writing, agents: Agents, gateway: Sockets) -> None:
        gauges = Readings(self._telemetry, self.recorder, store=store, journal=journal, agents=agents, gateway=gateway)
        self._telemetry.watch(gauges)

    def _tally(self, direction: str, kind: str, methods: Mapping[str, int]) -> None:
        for method, number in methods.items():
            known = method if method in METHODS else OTHER
            labels = {"direction": direction, "kind": kind, "method": known}
            self._telemetry.count("kandev_acp_messages_total", number, labels)

    def _latency(self, seconds: float) -> None:
        self._telemetry.observe(LATENCY, seconds, {})


def metering(telemetry: FanOut, selected: Sequence[str], agent_types: Iterable[str]) -> Unmetered:
    """For the telemetry that the settings select."""
    return Metering(telemetry, agent_types) if selected else Unmetered()
