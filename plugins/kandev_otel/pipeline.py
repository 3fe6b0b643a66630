"""From what the host measures, traces and logs to OTLP/HTTP: what is sent where, and how that begins and ends.

Everything is sent by threads of the library's, in batches from queues of a bounded length: a receiver that is slow or
gone costs what it does not take, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.util.re import parse_env_headers

from kandev_host import Gauges, LogLine
from kandev_host.errors import StartupError
from kandev_host.tracing import Tracer
from kandev_otel.headers import headers_of, register
from kandev_otel.lines import Lines
from kandev_otel.measures import Measures
from kandev_otel.quiet import quietened
from kandev_otel.spans import OtelTracer

if TYPE_CHECKING:
    from kandev_otel import OtelSettings

DEFAULT = "http://127.0.0.1:4318"
SERVICE = "kandev-host"
SCOPE = "kandev_host"
CLOSE_S = 2.0
QUEUED = 2048
QUEUED_LINES = 1024
VALUE_CHARS = 256
LINE_CHARS = 8192


class Exporter(Protocol):
    def shutdown(self) -> Any: ...


class Otel:
    """A Telemetry that also takes spans and log lines, as far as the settings have them sent."""

    def __init__(self, settings: OtelSettings, version: str) -> None:
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        signals = () if disabled else settings.signals
        resource = _resource(settings, version)
        sent = _Sent(settings)
        self._closing: list[Callable[[], object]] = []
        self._exporters: list[Exporter] = []
        self.measures: Measures | None = None
        self._lines: Lines | None = None
        self.tracer: Tracer | None = None
        if "traces" in signals:
            spans = OTLPSpanExporter(**sent.to("traces"))
            ratio = settings.sampled_ratio
            tracers = TracerProvider(
                sampler=None if ratio is None else ParentBased(TraceIdRatioBased(ratio)),
                resource=resource,
                shutdown_on_exit=False,
                span_limits=SpanLimits(max_attribute_length=VALUE_CHARS, max_span_attribute_length=VALUE_CHARS),
            )
            delay = settings.interval_s * 1000
            tracers.add_span_processor(BatchSpanProcessor(spans, max_queue_size=QUEUED, schedule_delay_millis=delay))
            self.tracer = OtelTracer(tracers.get_tracer(SCOPE, version))
            self._own(spans, tracers.shutdown)
        if "metrics" in signals:
            metrics = OTLPMetricExporter(**sent.to("metrics"))
            reader = PeriodicExportingMetricReader(metrics, settings.metrics_interval_s * 1000)
            meters = MeterProvider(
                [reader], resource=resource, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
            )
            self.measures = Measures(meters.get_meter(SCOPE, version), settings.metrics_interval_s)
            self._own(metrics, meters.shutdown)
        if "logs" in signals:
            logs = OTLPLogExporter(**sent.to("logs"))
            limits = LogRecordLimits(max_attribute_length=LINE_CHARS)
            loggers = LoggerProvider(resource, shutdown_on_exit=False, log_record_limits=limits)
            delay = settings.interval_s * 1000
            loggers.add_log_record_processor(
                BatchLogRecordProcessor(logs, max_queue_size=QUEUED_LINES, schedule_delay_millis=delay)
            )
            self._lines = Lines(loggers)
            self._own(logs, loggers.shutdown)

    @property
    def takes_log(self) -> bool:
        return self._lines is not None

    def log(self, line: LogLine) -> None:
        if self._lines is not None:
            self._lines.log(line)

    def count(self, name: str, value: float, labels: Any) -> None:
        if self.measures is not None:
            self.measures.count(name, value, labels)

    def observe(self, name: str, seconds: float, labels: Any) -> None:
        if self.measures is not None:
            self.measures.count(name, seconds, labels)

    def watch(self, gauges: Gauges) -> None:
        if self.measures is not None:
            self.measures.watch(gauges)

    def _own(self, exporter: Exporter, close: Callable[[], object]) -> None:
        self._exporters.append(exporter)
        self._closing.append(close)

    async def close(self) -> None:
        """Send what is left; what is not taken within CLOSE_S is dropped."""
        over = [_in_thread(close) for close in self._closing]
        with anyio.move_on_after(CLOSE_S, shield=True):
            for event in over:
                await event.wait()
        for exporter, event in zip(self._exporters, over, strict=True):
            if not event.is_set():
                _in_thread(exporter.shutdown)  # it waits for nobody any more


@asynccontextmanager
async def opened(settings: OtelSettings, version: str) -> AsyncIterator[Otel]:
    """Raises `StartupError` for a header whose secret is not there, and for variables that the library refuses."""
    with quietened(settings.endpoint or "the OTLP receiver"):
        try:
            otel = Otel(settings, version)
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            raise StartupError(f"telemetry.otel cannot start: {error}; look at the variables OTEL_…") from error
        async with anyio.create_task_group() as tasks:
            if otel.measures is not None:
                tasks.start_soon(otel.measures.look, name="gauges for OTLP")
            try:
                yield otel
            finally:
                tasks.cancel_scope.cancel()
                await otel.close()


class _Sent:
    """Where a signal goes, and with what."""

    def __init__(self, settings: OtelSettings) -> None:
        self._settings = settings
        self._headers = headers_of(settings)
        for name in ("", "TRACES_", "METRICS_", "LOGS_"):
            told = os.environ.get(f"OTEL_EXPORTER_OTLP_{name}HEADERS", "")
            register(parse_env_headers(told, liberal=True).values())

    def to(self, signal: str) -> dict[str, Any]:
        """For the exporter of one; what is None it looks up in the environment."""
        settings = self._settings
        names = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        base = settings.endpoint or (None if any(map(os.environ.get, names)) else DEFAULT)
        compressed = any(name.startswith("OTEL_EXPORTER_OTLP_") and "COMPRESSION" in name for name in os.environ)
        return {
            "endpoint": None if base is None else f"{base.rstrip('/')}/v1/{signal}",
            "headers": self._headers or None,
            "timeout": settings.timeout_s,
            "compression": None if compressed else Compression.Gzip,
        }


def _resource(settings: OtelSettings, version: str) -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read by the library; what is given to it counts more."""
    known = {"service.version": version}
    named = settings.service_name
    if named is None and "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        named = os.environ.get("OTEL_SERVICE_NAME") or SERVICE
    return Resource.create(known if named is None else {**known, "service.name": named})


def _in_thread(work: Callable[[], object]) -> asyncio.Event:
    """Set once that is done, or has failed. It ends with the process at the latest: nobody waits for such a thread."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            with suppress(Exception):  # the library has said so in its log
                work()
        finally:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(over.set)

    threading.Thread(target=run, name="OTLP end", daemon=True).start()
    return over
