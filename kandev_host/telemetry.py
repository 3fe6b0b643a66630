"""Measurements go to every selected telemetry provider, or nowhere; spans to the first that takes them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from kandev_host.interfaces import Gauges, Logging, LogLine, Telemetry, Tracing, Watching
from kandev_host.tracing import Tracer

log = logging.getLogger(__name__)


class FanOut:
    """A Telemetry that hands on to several; one that raises is dropped, so that measuring never breaks the work."""

    def __init__(self, sinks: Sequence[Telemetry] = ()) -> None:
        self._sinks = list(sinks)

    @property
    def sinks(self) -> tuple[Telemetry, ...]:
        """Those that are still heard."""
        return tuple(self._sinks)

    @property
    def tracer(self) -> Tracer | None:
        """Who takes spans: the first that does, for several would have to agree on the ids that agents are told."""
        return next((sink.tracer for sink in self._sinks if isinstance(sink, Tracing) and sink.tracer), None)

    @property
    def takes_log(self) -> bool:
        return any(isinstance(sink, Logging) and sink.takes_log for sink in self._sinks)

    def log(self, line: LogLine) -> None:
        """For those that take the log."""
        for sink in tuple(self._sinks):
            if isinstance(sink, Logging) and sink.takes_log:
                sink.log(line)

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._each(lambda sink: sink.count(name, value, labels))

    def observe(self, name: str, seconds: float, labels: Mapping[str, str]) -> None:
        self._each(lambda sink: sink.observe(name, seconds, labels))

    def watch(self, gauges: Gauges) -> None:
        """For those that tell gauges."""
        for sink in tuple(self._sinks):
            if isinstance(sink, Watching):
                sink.watch(gauges)

    def _each(self, hand_on: Callable[[Telemetry], None]) -> None:
        for sink in tuple(self._sinks):
            try:
                hand_on(sink)
            except Exception:  # the contract says it does not raise; a plugin may break it
                log.exception("telemetry %s failed and is dropped", type(sink).__name__)
                self._sinks.remove(sink)
