"""A jail, seen as the host's `Process`."""

from __future__ import annotations

import anyio

from kandev_host import Stats
from kandev_sandbox import Jail
from kandev_sandbox.pipes import PipeReader

NOT_EXECUTED = 127  # as a shell says it


class JailProcess:
    """A running jail with three pipes. `ref` is the jail's id, under which its record is kept."""

    def __init__(self, jail: Jail) -> None:
        self._jail = jail

    @property
    def ref(self) -> str:
        return self._jail.id

    @property
    def jail(self) -> Jail:
        return self._jail

    @property
    def adoptable(self) -> bool:
        return False

    @property
    def ending(self) -> str | None:
        return None if self._jail.ending is None else self._jail.ending.text

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await _receive(self._jail.stdout, max_bytes)

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        return await _receive(self._jail.stderr, max_bytes)

    async def send(self, data: bytes) -> None:
        if self._jail.stdin is None:
            raise BrokenPipeError("stdin is closed")
        try:
            await self._jail.stdin.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenPipeError("nobody reads stdin") from error

    async def close_stdin(self) -> None:
        if self._jail.stdin is not None:
            await self._jail.stdin.aclose()

    async def wait(self) -> int:
        code = await self._jail.wait()
        return code if self._jail.ran else NOT_EXECUTED

    async def terminate(self) -> None:
        await self._jail.terminate()

    async def kill(self) -> None:
        await self._jail.kill()

    async def stats(self) -> Stats:
        if not self._jail.init.alive():
            return Stats()
        used = await self._jail.usage()
        return Stats(used.cpu_s, used.rss_bytes, used.processes)


async def _receive(stream: PipeReader | None, max_bytes: int) -> bytes:
    if stream is None:
        return b""
    try:
        return await stream.receive(max_bytes)
    except (anyio.EndOfStream, anyio.ClosedResourceError):
        return b""
