"""What a service manager is told of the process: sd_notify(3), over a datagram socket, without a library.

Nothing waits long for it, and nothing fails because of it: who is not there, or does not read, misses a word.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
PATIENCE_S = 0.2


class ServiceManager:
    """`watchdog_s` is how often it wants to hear that all is well, None for never."""

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._address = None if address is None else "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def of(cls, environ: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """The one that started this process. Its variables are taken out: they are for no agent and no child."""
        address, watchdog, pid = (environ.pop(name, None) for name in (SOCKET, WATCHDOG, WATCHDOG_PID))
        if not address or address[0] not in "/@":
            return cls()
        mine = pid is None or pid == str(os.getpid())
        usec = int(watchdog) if watchdog is not None and watchdog.isascii() and watchdog.isdigit() and mine else 0
        return cls(address, usec / 1_000_000 or None)

    @property
    def listens(self) -> bool:
        return self._address is not None

    def ready(self, status: str) -> None:
        """It serves; also after a reload."""
        self._tell("READY=1", f"STATUS={_line(status)}")

    def status(self, status: str) -> None:
        """One line for people, as in systemctl status."""
        self._tell(f"STATUS={_line(status)}")

    def starting(self, status: str, more_s: float) -> None:
        """It is on its way, and takes at most so much longer."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(more_s * 1_000_000)}", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """It takes over its settings; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=stopping")

    def alive(self) -> None:
        """All is well, says the watchdog."""
        self._tell("WATCHDOG=1")

    def _tell(self, *words: str) -> None:
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(PATIENCE_S)
            try:
                to.sendto("\n".join(words).encode(), self._address)
            except OSError as error:
                log.debug("The service manager could not be told %s: %s", words[0], error)


def _line(text: str) -> str:
    return " ".join(text.split())[:1000]
