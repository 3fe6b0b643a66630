"""The host's metrics as instruments of OpenTelemetry: the same names, labels and buckets as everywhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import anyio
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from kandev_host import Gauges
from kandev_host.metrics import METRICS, OTHER, VALUES_LIMIT, Metric, Sample

log = logging.getLogger(__name__)
Measure = Callable[[float], None]


class Measures:
    """`look` keeps the gauges up to date; the library asks for them in a thread of its own."""

    def __init__(self, meter: Meter, interval_s: float) -> None:
        self._interval_s = interval_s
        self._gauges: Gauges | None = None
        self._watched = anyio.Event()
        self._standing: Sequence[Sample] = ()
        self._measures: dict[tuple[str, ...], Measure] = {}
        self._values: dict[tuple[str, str], set[str]] = {}
        self._instruments: dict[str, Callable[[float, dict[str, str]], None]] = {}
        for metric in METRICS.values():
            described = {"unit": unit_of(metric), "description": metric.summary}
            if metric.kind == "counter":
                self._instruments[metric.name] = meter.create_counter(metric.name, **described).add
            elif metric.kind == "histogram":
                self._instruments[metric.name] = meter.create_histogram(
                    metric.name, **described, explicit_bucket_boundaries_advisory=metric.buckets
                ).record
            else:
                meter.create_observable_gauge(metric.name, [self._observing(metric.name)], **described)

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        measure = self._measures.get((name, *labels.values()))
        if measure is None:
            measure = self._measure(name, labels)
        measure(value)

    def watch(self, gauges: Gauges) -> None:
        self._gauges = gauges
        self._watched.set()

    async def look(self) -> None:
        """For ever."""
        await self._watched.wait()
        while self._gauges is not None:
            try:
                await self._gauges.refresh()
                self._standing = list(self._gauges.samples())
            except Exception:  # whatever it is, it is no reason to end the host
                log.exception("the gauges could not be read, and stay as they were")
            await anyio.sleep(self._interval_s)

    def _observing(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, labels) for sample, labels, value in self._standing if sample == name]

        return observe

    def _measure(self, name: str, labels: Mapping[str, str]) -> Measure:
        values = {label: self._bounded(name, label, value) for label, value in labels.items()}
        instrument = self._instruments[name]

        def measure(value: float) -> None:
            instrument(value, values)

        if values == labels:
            self._measures[name, *values.values()] = measure
        return measure

    def _bounded(self, name: str, label: str, value: str) -> str:
        """Whoever measures keeps to few values; if ever one does not, the rest of them are one."""
        known = self._values.setdefault((name, label), set())
        if value not in known and len(known) >= VALUES_LIMIT:
            return OTHER
        known.add(value)
        return value


def unit_of(metric: Metric) -> str:
    """UCUM, by the name."""
    name = metric.name.removesuffix("_total")
    return "s" if name.endswith("_seconds") else "By" if name.endswith("_bytes") else "1"
