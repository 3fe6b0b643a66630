"""Threads with connections of their own. One transaction, or one query, is one function run on one of them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import anyio
import apsw

from kandev_host import errors

T = TypeVar("T")
CLOSE_S = 15.0
INTERRUPT_INTERVAL_S = 0.05


class Job(Generic[T]):
    """A function that waits for a thread, runs on one, or has `ended`."""

    __slots__ = ("connection", "ended", "error", "function", "future", "lock", "result")

    def __init__(self, function: Callable[[apsw.Connection], T], future: asyncio.Future[T]) -> None:
        self.function = function
        self.future = future
        self.connection: apsw.Connection | None = None
        self.ended = False
        self.lock = threading.Lock()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, connection: apsw.Connection) -> None:
        """On its thread. Nothing is done when nobody waits any more."""
        self.connection = connection
        try:
            if not self.future.done():
                self.result = self.function(connection)
        except BaseException as raised:
            self.error = raised
        with self.lock:
            self.connection = None
            self.ended = True

    def interrupt(self) -> None:
        """End its query, if one runs; what its thread does after it is not touched."""
        with self.lock:
            if self.connection is not None:
                self.connection.interrupt()

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Workers:
    """Runs functions off the event loop, in the order given, on as many threads as there are connections.

    Belongs to one event loop. With one connection, one function runs at a time.
    """

    def __init__(self, name: str, connections: list[apsw.Connection]) -> None:
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._done: deque[Job[Any]] = deque()
        self._told = False
        self._loop = asyncio.get_running_loop()
        self._working = len(connections)
        self._ended = asyncio.Event()
        for number, connection in enumerate(connections):
            # Daemons: a process that ends without closing its store must not hang; the log makes that safe.
            threading.Thread(target=self._work, args=(connection,), name=f"{name}-{number}", daemon=True).start()

    def submit(self, function: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        """Queue it. One whose future is cancelled before its turn is not run."""
        return self._put(function).future

    async def query(self, function: Callable[[apsw.Connection], T], timeout_s: float) -> T:
        """Run a query. When this is cancelled it is interrupted, and after `timeout_s` too. Raises `TimedOut`."""
        job = self._timed(function, timeout_s)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._interrupt(job)
            raise

    def read(self, function: Callable[[apsw.Connection], T], timeout_s: float) -> asyncio.Future[T]:
        """Run a query that nobody gives up. After `timeout_s` it is interrupted, and raises `TimedOut`."""
        return self._timed(function, timeout_s).future

    async def close(self) -> None:
        """Finish what is queued, close the connections and end the threads."""
        for _ in range(self._working):
            self._jobs.put(None)
        with anyio.move_on_after(CLOSE_S, shield=True):
            await self._ended.wait()

    def _put(self, function: Callable[[apsw.Connection], T]) -> Job[T]:
        job = Job(function, self._loop.create_future())
        self._jobs.put(job)
        return job

    def _timed(self, function: Callable[[apsw.Connection], T], timeout_s: float) -> Job[T]:
        job = self._put(function)
        # A timer, not a cancel scope: each read pays for it.
        timer = self._loop.call_later(timeout_s, self._expire, job, timeout_s)
        job.future.add_done_callback(lambda _: timer.cancel())
        return job

    def _expire(self, job: Job[Any], timeout_s: float) -> None:
        if not job.future.done():
            job.future.set_exception(errors.TimedOut(f"The query took longer than {timeout_s:g} s"))
        self._interrupt(job)

    def _interrupt(self, job: Job[Any]) -> None:
        """Again and again, since an interrupt before the first step of a statement is forgotten."""
        if not job.ended:
            job.interrupt()
            self._loop.call_later(INTERRUPT_INTERVAL_S, self._interrupt, job)

    def _work(self, connection: apsw.Connection) -> None:
        while (job := self._jobs.get()) is not None:
            job.run(connection)
            self._done.append(job)
            del job
            # One call for all that end until it runs: each wakes the loop by a system call.
            if not self._told:
                self._told = True
                self._call(self._settle)
        connection.close()
        self._call(self._leave)

    def _call(self, function: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def _settle(self) -> None:
        self._told = False  # before looking: whoever appends after that calls again
        while self._done:
            self._done.popleft().settle()

    def _leave(self) -> None:
        self._working -= 1
        if not self._working:
            self._ended.set()
