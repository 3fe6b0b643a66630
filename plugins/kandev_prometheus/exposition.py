"""What was measured, in a registry of this host alone, as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import prometheus_client
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from kandev_host import Authenticator, Gauges
from kandev_host.metrics import METRICS, OTHER, VALUES_LIMIT, Sample

SCOPE = "metrics:read"
Measure = Callable[[float], None]


class Prometheus:
    """A Telemetry that waits to be asked: `serve` is the handler of its route."""

    def __init__(self, path: str, authenticator: Authenticator | None = None) -> None:
        # The times at which counters were made would be a series more of each.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.path = path
        self.authenticator = authenticator
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._standing = Standing()
        self._registry.register(self._standing)
        self._metrics = {
            metric.name: Histogram(
                metric.name, metric.summary, metric.labels, buckets=metric.buckets, registry=self._registry
            )
            if metric.kind == "histogram"
            else Counter(metric.name, metric.summary, metric.labels, registry=self._registry)
            for metric in METRICS.values()
            if metric.kind != "gauge"
        }
        self._measures: dict[tuple[str, ...], Measure] = {}
        self._values: dict[tuple[str, str], set[str]] = {}
        self._gauges: Gauges | None = None
        self._turn = asyncio.Lock()

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.observe(name, value, labels)

    def observe(self, name: str, seconds: float, labels: Mapping[str, str]) -> None:
        measure = self._measures.get((name, *labels.values()))
        if measure is None:
            measure = self._measure(name, labels)
        measure(seconds)

    def watch(self, gauges: Gauges) -> None:
        self._gauges = gauges

    async def serve(self, request: web.Request) -> web.Response:
        """The text format, or OpenMetrics for who accepts that. One at a time, and written off the loop."""
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        async with self._turn:
            if self._gauges is not None:
                await self._gauges.refresh()
                self._standing.samples = list(self._gauges.samples())
            body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store"})

    def _measure(self, name: str, labels: Mapping[str, str]) -> Measure:
        values = {label: self._bounded(name, label, value) for label, value in labels.items()}
        metric = self._metrics[name]
        one: Any = metric.labels(**values) if values else metric
        measure: Measure = one.observe if isinstance(metric, Histogram) else one.inc
        if all(values[label] == value for label, value in labels.items()):
            self._measures[name, *values.values()] = measure
        return measure

    def _bounded(self, name: str, label: str, value: str) -> str:
        """Whoever measures keeps to few values; if ever one does not, the rest of them are one."""
        known = self._values.setdefault((name, label), set())
        if value not in known and len(known) >= VALUES_LIMIT:
            return OTHER
        known.add(value)
        return value


class Standing:
    """Gauges, as they were read when the metrics were asked for."""

    def __init__(self) -> None:
        self.samples: Sequence[Sample] = ()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return (_family(name) for name, metric in METRICS.items() if metric.kind == "gauge")

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = {family.name: family for family in self.describe()}
        for name, labels, value in self.samples:
            families[name].add_metric([labels[label] for label in METRICS[name].labels], value)
        yield from families.values()


def _family(name: str) -> GaugeMetricFamily:
    metric = METRICS[name]
    return GaugeMetricFamily(name, metric.summary, labels=metric.labels)
