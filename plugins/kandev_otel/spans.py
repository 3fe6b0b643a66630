"""The host's spans as OpenTelemetry's. Their context is handed on by the host, never by the library's own variables."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from kandev_host.secrets import known
from kandev_host.tracing import Attributes, Kind, SpanContext, Value

_KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}


class OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        here = span.get_span_context()
        self.context = SpanContext(
            trace.format_trace_id(here.trace_id),
            trace.format_span_id(here.span_id),
            here.trace_flags.sampled,
            here.trace_state.to_header(),
        )

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_clean(attributes))

    def end(self, error: str | None) -> None:
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class OtelTracer:
    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start(
        self, name: str, kind: Kind, attributes: Attributes, parent: SpanContext | None, links: Sequence[SpanContext]
    ) -> OtelSpan:
        around = Context()
        if parent is not None:
            around = trace.set_span_in_context(NonRecordingSpan(otel_context(parent)), around)
        span = self._tracer.start_span(
            name,
            context=around,
            kind=_KINDS[kind],
            attributes=_clean(attributes),
            links=[Link(otel_context(link)) for link in links],
        )
        return OtelSpan(span)


def otel_context(context: SpanContext) -> trace.SpanContext:
    """The same in the library's terms."""
    return trace.SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=context.remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([context.state]) if context.state else None,
    )


def _clean(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: _cleaned(value) for name, value in attributes.items()}


def _cleaned(value: Value) -> AttributeValue:
    if isinstance(value, str):
        return known.clean_text(value)
    return tuple(map(known.clean_text, value)) if isinstance(value, tuple) else value
