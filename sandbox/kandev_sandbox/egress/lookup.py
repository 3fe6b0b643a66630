"""Asking the host's resolver, in threads of which a jail may hold few and which never keep the process from ending."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio

from kandev_sandbox.egress.decisions import Unreachable

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

TIMEOUT_S = 10.0
MAX_THREADS = 8
MAX_ALL_THREADS = 64


class Resolver:
    """The lookups of one jail. A slow one holds its thread after the time-out, until the resolver gives up."""

    _all = threading.BoundedSemaphore(MAX_ALL_THREADS)

    def __init__(self) -> None:
        self._own = threading.BoundedSemaphore(MAX_THREADS)

    async def __call__(self, name: str, port: int) -> list[str]:
        """The addresses of a name, the best first. Raises `Unreachable`."""
        if not self._own.acquire(blocking=False):
            raise Unreachable("too many names are being looked up", "busy")
        if not self._all.acquire(blocking=False):
            self._own.release()
            raise Unreachable("too many names are being looked up", "busy")
        outcome: list[list[str] | OSError | UnicodeError] = []
        try:
            done, finished = socket.socketpair()
        except OSError as error:  # out of descriptors for now
            self._release()
            raise Unreachable("too many names are being looked up", "busy") from error
        try:
            # Not one of a pool: those would be waited for at the end of the process.
            threading.Thread(target=self._ask, args=(name, port, outcome, finished), daemon=True).start()
        except BaseException:
            finished.close()
            self._release()
            done.close()
            raise
        with done:
            with anyio.move_on_after(TIMEOUT_S):
                await anyio.wait_readable(done)
        if not outcome:
            raise Unreachable(f"{name} was not found within {TIMEOUT_S:.0f} s", "timeout")
        if not isinstance(outcome[0], list):
            raise Unreachable(f"{name} has no address", "name")
        return outcome[0]

    def _ask(
        self, name: str, port: int, outcome: list[list[str] | OSError | UnicodeError], finished: socket.socket
    ) -> None:
        with finished:
            try:
                found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
                outcome.append(list(dict.fromkeys(str(address[0]) for *_, address in found)))
            except (OSError, UnicodeError) as error:
                outcome.append(error)
            finally:
                self._release()
            with suppress(OSError):  # nobody waits any more
                finished.send(b"x")

    def _release(self) -> None:
        self._own.release()
        self._all.release()
