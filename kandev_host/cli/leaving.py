"""The end of a process that hosted plugins: it comes in time, whatever hangs and whatever threads still run."""

from __future__ import annotations

import logging
import os
import sys
import threading

from kandev_host.printable import printable

log = logging.getLogger(__name__)

EXIT_S = 1.0


class Leaving:
    """Ends the process EXIT_S after the host is closed, if it has not ended by itself: Python waits for threads."""

    def __init__(self) -> None:
        self._status = 0
        self._untold: str | None = None

    def begin(self, status: int = 0, message: str | None = None) -> None:
        """The host is closed. `message` is shown, should nobody get to show it."""
        self._status, self._untold = status, message
        timer = threading.Timer(EXIT_S, self._end)
        timer.daemon = True
        timer.start()

    def deadline(self, seconds: float) -> None:
        """The host was asked to stop, and has so long. From a thread: the event loop may be what hangs."""
        timer = threading.Timer(seconds, self._overdue, (seconds,))
        timer.daemon = True
        timer.start()

    def told(self) -> None:
        """The event loop is closed: whoever started it shows the message."""
        self._untold = None

    def _overdue(self, seconds: float) -> None:
        # Agents die with this process, and the journal holds what was acknowledged: as with a second signal.
        log.error("The host did not stop within %g s (server.stop_timeout_s), and is ended", seconds)
        sys.stderr.flush()
        os._exit(1)

    def _end(self) -> None:
        kept = sorted(
            thread.name
            for thread in threading.enumerate()
            if thread is not threading.main_thread() and not thread.daemon
        )
        log.warning("The process is ended although threads of a plugin still run: %s", ", ".join(kept) or "unknown")
        if self._untold is not None:
            sys.stderr.write(f"kandev-host: {printable(' '.join(self._untold.split()))}\n")
        sys.stderr.flush()
        os._exit(self._status)
