"""What the library says when nobody takes what it sends: one line in the host's log now and then, not one each time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)
LIBRARY = "opentelemetry"
PAUSE_S = 60.0


class Quiet(logging.Handler):
    """Takes the library's warnings, and tells one of them a minute."""

    def __init__(self, receiver: str) -> None:
        super().__init__(logging.WARNING)
        self._receiver = receiver
        self._told_at: float | None = None
        self._untold = 0

    def emit(self, record: logging.LogRecord) -> None:
        at = time.monotonic()
        if self._told_at is not None and at - self._told_at < PAUSE_S:
            self._untold += 1
            return
        untold, self._untold, self._told_at = self._untold, 0, at
        log.warning(
            "%s does not take what it is sent, which is dropped: %s%s; see telemetry.otel",
            self._receiver,
            record.getMessage(),
            f" (and {untold} times more before)" if untold else "",
        )


@contextmanager
def quietened(receiver: str) -> Iterator[None]:
    """Within this the library's own log goes through `Quiet`; what its threads say afterwards is told to nobody."""
    library, quiet = logging.getLogger(LIBRARY), Quiet(receiver)
    library.propagate = False
    if not library.handlers:
        library.addHandler(logging.NullHandler())
    library.addHandler(quiet)
    try:
        yield
    finally:
        library.removeHandler(quiet)
