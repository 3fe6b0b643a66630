"""A process that is started only when what it is to do is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from kandev_host.errors import AgentError, KandevError
from kandev_host.interfaces import Process, ProcessSpec, Runtime, Stats

NOT_STARTED = 127


class LaterProcess:
    """Until `start` it is silent, and has no `ref`; ending it before that ends it. Made by `later`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._spec: ProcessSpec | None = None
        self._process: Process | None = None
        self._failure: KandevError | None = None
        self._asked = anyio.Event()
        self._ready = anyio.Event()
        self._left = anyio.Event()

    async def start(self, spec: ProcessSpec) -> None:
        """Start it. Raises `KandevError` as the runtime, `AgentError` if it was ended before."""
        if not self._asked.is_set():
            self._spec = spec
            self._asked.set()
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure
        if self._process is None:
            raise AgentError("The agent was ended before it had started")

    async def own(self) -> None:
        """Start it when asked to, and hold it until `leave`, in one task: runtimes may have task groups of theirs."""
        await self._asked.wait()
        try:
            if self._spec is not None:
                async with self._runtime.spawn(self._spec) as process:
                    self._process = process
                    self._ready.set()
                    await self._left.wait()
        except KandevError as error:
            if self._ready.is_set():
                raise
            self._failure = error
        finally:
            self._ready.set()

    def leave(self) -> None:
        """Kill what still runs."""
        self._asked.set()
        self._left.set()

    async def _started(self) -> Process | None:
        await self._ready.wait()
        return self._process

    async def _ended(self) -> Process | None:
        """The process that is to be ended; one that has not started never does."""
        self._asked.set()
        return await self._started()

    @property
    def ref(self) -> str:
        return "" if self._process is None else self._process.ref

    @property
    def adoptable(self) -> bool:
        return self._process is not None and self._process.adoptable

    @property
    def ending(self) -> str | None:
        return None if self._process is None else self._process.ending

    async def receive(self, max_bytes: int = 65536) -> bytes:
        process = await self._started()
        return b"" if process is None else await process.receive(max_bytes)

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        process = await self._started()
        return b"" if process is None else await process.receive_stderr(max_bytes)

    async def send(self, data: bytes) -> None:
        process = await self._started()
        if process is None:
            raise BrokenPipeError("it did not start")
        await process.send(data)

    async def close_stdin(self) -> None:
        process = await self._ended()
        if process is not None:
            await process.close_stdin()

    async def wait(self) -> int:
        process = await self._started()
        if process is None:
            return NOT_STARTED if self._failure is not None else 0
        return await process.wait()

    async def terminate(self) -> None:
        process = await self._ended()
        if process is not None:
            await process.terminate()

    async def kill(self) -> None:
        process = await self._ended()
        if process is not None:
            await process.kill()

    async def stats(self) -> Stats:
        return Stats() if self._process is None else await self._process.stats()


@asynccontextmanager
async def later(process: LaterProcess) -> AsyncIterator[Process]:
    """While this is entered the process may be started; leaving it kills."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.own)
        try:
            yield process
        finally:
            process.leave()
