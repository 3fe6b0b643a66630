"""A process on a pseudo terminal, as the host knows it, whatever encloses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from kandev_host import Process, Stats

P = TypeVar("P", bound=Process)


class PlaceTerminal(ABC, Generic[P]):
    """A `Terminal`. `terminate` hangs up (SIGHUP): interactive shells ignore SIGTERM."""

    def __init__(self, process: P) -> None:
        self._process = process

    @property
    def ref(self) -> str:
        return self._process.ref

    @property
    def adoptable(self) -> bool:
        return False

    @property
    def ending(self) -> str | None:
        return self._process.ending

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._process.receive(max_bytes)

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        """b"": what the process writes there is shown with the rest."""
        return b""

    async def send(self, data: bytes) -> None:
        await self._process.send(data)

    @abstractmethod
    async def close_stdin(self) -> None: ...

    @abstractmethod
    async def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        return await self._process.wait()

    @abstractmethod
    async def terminate(self) -> None: ...

    async def kill(self) -> None:
        await self._process.kill()

    async def stats(self) -> Stats:
        return await self._process.stats()
