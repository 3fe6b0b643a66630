"""The host's log lines as OpenTelemetry's log records."""

from __future__ import annotations

import time

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.trace import NonRecordingSpan

from kandev_host import LogLine
from kandev_host.tracing import SpanContext
from kandev_otel.spans import otel_context

# What speaks of the sending itself would be sent for ever.
OWN = ("kandev_otel", "opentelemetry", "requests", "urllib3")
_LEVELS = (
    SeverityNumber.TRACE,
    SeverityNumber.DEBUG,
    SeverityNumber.INFO,
    SeverityNumber.WARN,
    SeverityNumber.ERROR,
    SeverityNumber.FATAL,
)


class Lines:
    def __init__(self, loggers: LoggerProvider) -> None:
        self._loggers = loggers

    def log(self, line: LogLine) -> None:
        if line.logger.partition(".")[0] in OWN:
            return
        around, ids = Context(), dict(line.ids)
        trace_id, span_id = ids.pop("trace_id", None), ids.pop("span_id", None)
        if trace_id is not None and span_id is not None:
            span = NonRecordingSpan(otel_context(SpanContext(trace_id, span_id)))
            around = trace.set_span_in_context(span, around)
        attributes = {f"kandev.{name.replace('_', '.')}": value for name, value in ids.items()}
        if line.exception:
            attributes |= {"exception.type": line.exception, "exception.stacktrace": line.traceback}
        severity = _LEVELS[min(max(line.level // 10, 0), 5)]
        self._loggers.get_logger(line.logger).emit(
            LogRecord(
                timestamp=int(line.at * 1e9),
                observed_timestamp=time.time_ns(),
                context=around,
                severity_text=severity.name,
                severity_number=severity,
                body=line.message,
                attributes=attributes,
            )
        )
