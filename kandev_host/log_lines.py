"""The host's log as it leaves the host: each line bounded, and without tokens and known secrets."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from kandev_host.interfaces import LogLine
from kandev_host.log_ids import current
from kandev_host.logs import without_tokens
from kandev_host.printable import printable
from kandev_host.secrets import known
from kandev_host.telemetry import FanOut

MESSAGE_CHARS = 4096
TRACEBACK_CHARS = 8192


class _Sender(logging.Handler):
    def __init__(self, telemetry: FanOut) -> None:
        super().__init__()
        self._telemetry = telemetry

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock of other handlers: a telemetry may log from a thread while it is logged to."""
        if not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._telemetry.log(line_of(record))
        except Exception:  # logging's own way: told on stderr, and the host goes on
            self.handleError(record)


@contextmanager
def sent_to(telemetry: FanOut) -> Iterator[None]:
    """Within this, what is logged goes to the telemetry that takes it, too."""
    if not telemetry.takes_log:
        yield
        return
    root, sender = logging.getLogger(), _Sender(telemetry)
    root.addHandler(sender)
    try:
        yield
    finally:
        root.removeHandler(sender)


def line_of(record: logging.LogRecord) -> LogLine:
    """What a record says, as it may leave the host."""
    exception = told = ""
    if record.exc_info and record.exc_info[0] is not None:
        exception = record.exc_info[0].__name__
        # Its end says most.
        told = _clean("".join(traceback.format_exception(*record.exc_info)))[-TRACEBACK_CHARS:]
    return LogLine(
        at=record.created,
        level=record.levelno,
        logger=record.name,
        message=_clean(record.getMessage())[:MESSAGE_CHARS],
        ids={name: known.clean_text(value) for name, value in current().items()},
        exception=exception,
        traceback=told,
    )


def _clean(text: str) -> str:
    return printable(known.clean_text(without_tokens(text)), lines=True)
