"""Calls of third-party plugins while the host runs: each within its time, and named when it fails."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from msgspec.structs import replace

from kandev_host.bounded import FAULTS, Overdue, from_thread
from kandev_host.errors import KandevError, Unavailable
from kandev_host.interfaces import Call

log = logging.getLogger(__name__)

Failed = Callable[[str], None]


class PluginCall:
    """What `call` answers from a thread of its own. Raises `Unavailable` for one that raises, or is not done in time.

    While one that is overdue still runs no other is begun, so that a plugin that hangs costs one thread and one wait.
    `failed` is told what happened; `answers` are errors that are no failure.
    """

    def __init__(
        self,
        plugin: str,
        purpose: str,
        call: Callable[..., Any],
        *,
        timeout_s: float,
        failed: Failed,
        answers: type[Exception] | tuple[()] = (),
    ) -> None:
        self._plugin = plugin
        self._purpose = purpose
        self._call = call
        self._timeout_s = timeout_s
        self._failed = failed
        self._answers = answers
        self._overdue: list[Future[Any]] = []

    async def __call__(self, *values: Any) -> Any:
        self._overdue = [each for each in self._overdue if not each.done()]
        if self._overdue:
            raise Unavailable(f"The plugin {self._plugin} has not returned from {self._purpose} yet")
        try:
            return await from_thread(lambda: self._call(*values), self._timeout_s, self._plugin)
        except self._answers:
            raise
        except FAULTS as error:
            if isinstance(error, Overdue) and error.left is not None:
                self._overdue.append(error.left)
            self._failed(f"{self._purpose}: {describe(error)}")
            raise Unavailable(f"The plugin {self._plugin} failed: {describe(error)}") from error


def handler_of(plugin: str, name: str, handler: Callable[..., Any], timeout_s: float, failed: Failed) -> Any:
    """The handler of a third party's action. One that is no coroutine cannot hold the event loop up."""
    if inspect.iscoroutinefunction(handler):
        return named(name, handler, failed, KandevError)
    call_it = PluginCall(plugin, name, handler, timeout_s=timeout_s, failed=failed, answers=KandevError)

    async def bounded(call: Call, request: Any) -> Any:
        loop, subscribe = asyncio.get_running_loop(), call.subscribe

        def from_its_thread(topic: str) -> None:
            loop.call_soon_threadsafe(subscribe, topic)

        result = await call_it(replace(call, subscribe=from_its_thread), request)
        return await result if inspect.isawaitable(result) else result

    return bounded


def named(
    name: str,
    handler: Callable[..., Awaitable[Any]],
    failed: Failed,
    answers: type[Exception] | tuple[type[Exception], ...],
) -> Callable[..., Awaitable[Any]]:
    """The coroutine, with `failed` told of every error that is no answer."""

    async def noted(*values: Any) -> Any:
        try:
            return await handler(*values)
        except answers:
            raise
        except FAULTS as error:
            failed(f"{name}: {describe(error)}")
            raise RuntimeError(f"{name}: {describe(error)}") from error  # SystemExit would end the event loop

    return noted


def describe(error: BaseException) -> str:
    """An exception as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
