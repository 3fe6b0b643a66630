"""A thread with a connection of its own. One transaction, or one query, is one function run on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
import apsw

T = TypeVar("T")
CLOSE_S = 15.0
INTERRUPT_INTERVAL_S = 0.05

Job = tuple[Callable[[apsw.Connection], Any], "asyncio.Future[Any]"]


class Worker:
    """Runs functions one after another on its thread, off the event loop. Belongs to one event loop."""

    def __init__(self, name: str, connection: apsw.Connection) -> None:
        self.connection = connection
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        # A daemon: a process that ends without closing its store must not hang; the log makes that safe.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, function: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        """Queue it. One whose future is cancelled before its turn is not run."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((function, future))
        return future

    async def run_interruptible(self, function: Callable[[apsw.Connection], T]) -> T:
        """Run a query; when cancelled, interrupt it, and return only after it has ended."""
        future = self.submit(function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                while not future.done():
                    # Again and again, since an interrupt before the first step of a statement is forgotten.
                    self.connection.interrupt()
                    await asyncio.wait([future], timeout=INTERRUPT_INTERVAL_S)
            future.exception()
            raise

    async def close(self) -> None:
        """Finish what is queued, close the connection and end the thread."""
        self._jobs.put(None)
        with anyio.move_on_after(CLOSE_S, shield=True):
            await asyncio.wait([self._ended])

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, future = job
            if future.cancelled():
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(self.connection)
            except BaseException as raised:
                error = raised
            self._hand_over(future, result, error)
            del job, function, future, result, error
        self.connection.close()
        self._hand_over(self._ended, None, None)

    def _hand_over(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class Readers:
    """A fixed number of workers, each lent to one query at a time."""

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers
        self._idle = list(workers)
        self._free = anyio.Semaphore(len(workers))

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Worker]:
        async with self._free:
            worker = self._idle.pop()
            try:
                yield worker
            finally:
                self._idle.append(worker)

    async def close(self) -> None:
        for worker in self._workers:
            await worker.close()
