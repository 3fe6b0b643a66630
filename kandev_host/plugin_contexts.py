"""What third-party plugins keep open as long as the host lives: entered, held and left in a task of its own.

So neither its start nor its end nor what it does in the background can hold the host or end it; and a cancel scope that
it opens is closed in the task that opened it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import anyio

from kandev_host.bounded import FAULTS, Overdue, drop, from_thread, in_task
from kandev_host.errors import Unauthorized, Unavailable
from kandev_host.interfaces import Authenticator, Credentials, Issued, Issuer, Principal, Refused
from kandev_host.plugin_calls import Failed, describe

T = TypeVar("T")
LEAST_STOP_S = 0.2


class StopTime:
    """The time that the ends of all plugins share, in seconds, so that many that hang take no longer than one."""

    def __init__(self, total_s: float) -> None:
        self._left_s = total_s

    @property
    def left_s(self) -> float:
        return max(LEAST_STOP_S, self._left_s)

    def spend(self, seconds: float) -> None:
        self._left_s -= seconds


class OwnTask(Generic[T]):
    """The context that `make` brings (called in a thread), in a task of its own.

    Entering raises what the plugin raises, or `Overdue`; leaving raises nothing, and tells `failed` what went wrong, as
    does whatever ends it in between.
    """

    def __init__(
        self,
        plugin: str,
        make: Callable[[], AbstractAsyncContextManager[T]],
        *,
        start_timeout_s: float,
        stop_time: StopTime,
        failed: Failed,
    ) -> None:
        self._plugin = plugin
        self._make = make
        self._start_timeout_s = start_timeout_s
        self._stop_time = stop_time
        self._failed = failed
        self._entered: asyncio.Future[T]
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> T:
        self._entered = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(), name=f"plugin {self._plugin}")
        try:
            both: set[asyncio.Future[Any]] = {self._task, self._entered}
            await asyncio.wait(both, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await drop(self._task)
            raise
        if self._entered.done():
            self._task.add_done_callback(self._ended)
            return self._entered.result()
        if not self._task.done():
            await drop(self._task)
            raise Overdue(self._start_timeout_s)
        if self._task.cancelled():
            raise RuntimeError("it cancelled itself")
        self._task.result()
        raise RuntimeError("it ended as soon as it began")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        began, timeout_s = time.monotonic(), self._stop_time.left_s
        with anyio.CancelScope(shield=True):
            await asyncio.wait({self._task}, timeout=timeout_s)
            if not self._task.done():
                self._failed(f"its end is {describe(Overdue(timeout_s))}")
                await drop(self._task)
        self._stop_time.spend(time.monotonic() - began)

    async def _live(self) -> None:
        try:
            context = await from_thread(self._make, self._start_timeout_s, self._plugin)
            async with context as value:
                self._entered.set_result(value)
                await self._leave.wait()
        except SystemExit as error:  # in a task it would end the event loop
            raise RuntimeError(f"SystemExit: {error}") from error

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(f"{'its end' if self._leave.is_set() else 'its work'} failed: {describe(_alone(error))}")
        elif not self._leave.is_set():
            self._failed("its work ended before the host did")


class BoundedAuthenticator:
    """One of a third party: whoever it does not answer for in time is refused."""

    def __init__(self, plugin: str, authenticator: Authenticator, *, timeout_s: float, failed: Failed) -> None:
        self._plugin = plugin
        self._authenticator = authenticator
        self._timeout_s = timeout_s
        self._failed = failed

    @property
    def remote(self) -> bool:
        """Only where the plugin says so."""
        try:
            return self._authenticator.remote is True
        except FAULTS as error:
            self._failed(f"remote: {describe(error)}")
            return False

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        """The principal, or None. Raises `Unauthorized` when the plugin fails."""
        return await self._asked("authenticate", self._authenticator.authenticate(credentials), Principal)

    def holds(self, principal: Principal) -> bool:
        """Does its credential hold? No, where the plugin raises."""
        try:
            return self._authenticator.holds(principal) is True
        except FAULTS as error:
            self._failed(f"holds: {describe(error)}")
            return False

    async def revoke(self, principal: Principal) -> bool:
        """Raises `Unavailable` when the plugin fails: nobody may take it for revoked."""
        try:
            return await in_task(self._authenticator.revoke(principal), self._timeout_s, self._plugin) is True
        except FAULTS as error:
            self._failed(f"revoke: {describe(error)}")
            raise Unavailable(f"The plugin {self._plugin} failed; what it revokes may still hold") from error

    async def _asked(self, what: str, asking: Awaitable[T | None], *kinds: type) -> T | None:
        try:
            found = await in_task(asking, self._timeout_s, self._plugin)
            if found is not None and not isinstance(found, kinds):
                raise TypeError(f"{what} returned {type(found).__name__}, not {kinds[0].__name__}")
        except FAULTS as error:
            self._failed(f"{what}: {describe(error)}")
            raise Unauthorized(f"Nobody can log in now: the plugin {self._plugin} failed") from error
        return found


class BoundedIssuer(BoundedAuthenticator):
    """The same of one that also knows names and passwords."""

    def __init__(self, plugin: str, issuer: Issuer, *, timeout_s: float, failed: Failed) -> None:
        """`issuer` is an `Authenticator` too."""
        super().__init__(plugin, cast("Authenticator", issuer), timeout_s=timeout_s, failed=failed)
        self._issuer = issuer

    async def log_in(self, name: str, password: str, address: str) -> Issued | Refused | None:
        """What the plugin issues, or None. Raises `Unauthorized` when it fails."""
        return await self._asked("log_in", self._issuer.log_in(name, password, address), Issued, Refused)

    async def refresh(self, refresh_token: str, address: str) -> Issued | Refused | None:
        """The same, for a refresh token."""
        return await self._asked("refresh", self._issuer.refresh(refresh_token, address), Issued, Refused)


def bounded(plugin: str, authenticator: Authenticator, *, timeout_s: float, failed: Failed) -> Authenticator:
    """That authenticator of a third party, held to its time in all that it offers."""
    if isinstance(authenticator, Issuer):
        return BoundedIssuer(plugin, authenticator, timeout_s=timeout_s, failed=failed)
    return BoundedAuthenticator(plugin, authenticator, timeout_s=timeout_s, failed=failed)


def _alone(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
