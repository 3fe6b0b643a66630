"""Code of third-party plugins, run where it can neither hold the host nor end it.

What blocks, blocks a daemon thread of its own; what waits, waits in a task of its own. Either is left behind when its
time is over: nothing in Python ends a thread, and a task may refuse to be cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Any, TypeVar

import anyio

T = TypeVar("T")
# What a plugin may raise that is its own fault. Cancellation is not among them.
FAULTS = (Exception, SystemExit)
LAST_WORDS_S = 0.5


class Overdue(Exception):
    """It did not end in its time; `left` is what still runs."""

    def __init__(self, timeout_s: float, left: Future[Any] | None = None) -> None:
        super().__init__(f"not done after {timeout_s:g} s")
        self.left = left


def in_thread(call: Callable[[], T], timeout_s: float, name: str) -> T:
    """What `call` returns or raises. Blocks the caller meanwhile: for the start. Raises `Overdue`."""
    begun = _begun(call, name)
    wait_for([begun], timeout_s)
    if not begun.done():
        raise Overdue(timeout_s, begun)
    return begun.result()


async def from_thread(call: Callable[[], T], timeout_s: float, name: str) -> T:
    """The same, while the event loop goes on. Raises `Overdue`."""
    begun = _begun(call, name)
    here = asyncio.wrap_future(begun)
    try:
        await asyncio.wait({here}, timeout=timeout_s)
        if not here.done():
            raise Overdue(timeout_s, begun)
        return here.result()
    finally:
        here.cancel()  # what comes later is for nobody


async def in_task(awaitable: Awaitable[T], timeout_s: float, name: str) -> T:
    """What `awaitable` brings, or raises. Raises `Overdue`, whatever it does about being cancelled."""
    task = asyncio.ensure_future(_without_exit(awaitable))
    try:
        await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        await drop(task)
        raise
    if not task.done():
        await drop(task)
        raise Overdue(timeout_s)
    try:
        return task.result()
    except asyncio.CancelledError as error:
        raise RuntimeError(f"{name} cancelled itself") from error


async def drop(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and forget it if it does not obey: else the end of the event loop would wait for it for ever."""
    task.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.wait({task}, timeout=LAST_WORDS_S)
    if task.done():
        if not task.cancelled():
            task.exception()  # seen: nobody else asks for it
        return
    asyncio._unregister_task(task)


def _begun(call: Callable[[], T], name: str) -> Future[T]:
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # so that whoever gives up waiting does not cancel it

    def run() -> None:
        try:
            result = call()
        except FAULTS as error:
            outcome.set_exception(error)
        except BaseException as error:
            outcome.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
        else:
            outcome.set_result(result)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name=f"plugin {name}", daemon=True).start()
    return outcome


async def _without_exit(awaitable: Awaitable[T]) -> T:
    """A task that raises SystemExit would end the event loop."""
    try:
        return await awaitable
    except SystemExit as error:
        raise RuntimeError(f"SystemExit: {error}") from error
