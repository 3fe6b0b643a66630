"""A receiver of OTLP/HTTP: what an OpenTelemetry collector does with what it is sent, as far as tests ask."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS: dict[str, Callable[[], Any]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Span:
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    error: str | None
    resource: dict[str, Any]


@dataclass(frozen=True)
class Line:
    logger: str
    level: str
    message: str
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass
class Receiver:
    """On a port of this machine, in a thread of its own. `status` is what it answers; `hangs`: nothing, ever."""

    status: int = 200
    hangs: bool = False
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    asked: int = 0

    def __enter__(self) -> Receiver:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/{signal}", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        await self._over.wait()
        await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.hangs:
            await self._over.wait()
        if self.hangs or self.status != 200:
            return web.Response(status=503 if self.hangs else self.status)
        body = await request.read()
        if body[:2] == b"\x1f\x8b":  # aiohttp may have taken the gzip off
            body = gzip.decompress(body)
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        signal = request.match_info["signal"]
        message = REQUESTS[signal]()
        message.ParseFromString(body)
        getattr(self, f"_take_{signal}")(message)
        return web.Response(body=b"", content_type="application/x-protobuf")

    def _take_traces(self, message: Any) -> None:
        for group in message.resource_spans:
            resource = _values(group.resource.attributes)
            self.spans += [_span(span, resource) for scope in group.scope_spans for span in scope.spans]

    def _take_metrics(self, message: Any) -> None:
        for group in message.resource_metrics:
            for scope in group.scope_metrics:
                self.metrics.update({metric.name: metric for metric in scope.metrics})

    def _take_logs(self, message: Any) -> None:
        for group in message.resource_logs:
            for scope in group.scope_logs:
                self.lines += [
                    Line(
                        scope.scope.name,
                        line.severity_text,
                        line.body.string_value,
                        line.trace_id.hex(),
                        line.span_id.hex(),
                        _values(line.attributes),
                    )
                    for line in scope.log_records
                ]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def until(self, what: Callable[[], Any]) -> Any:
        """What it answers as soon as that is something."""
        deadline = time.monotonic() + DEADLINE_S
        while not (found := what()):
            assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {sorted(s.name for s in self.spans)}"
            time.sleep(0.05)
        return found


def _span(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _values(span.attributes),
        span.status.message if span.status.code == 2 else None,
        resource,
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
