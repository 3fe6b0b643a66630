"""Running a short command to its end, with bounded output and a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import anyio

_CHUNK_BYTES = 1 << 16


class Piped(Protocol):
    """A process with three pipes, jailed or not. `receive` answers b"" at the end."""

    async def receive(self, max_bytes: int = ...) -> bytes: ...

    async def receive_stderr(self, max_bytes: int = ...) -> bytes: ...

    async def send(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def wait(self) -> int: ...

    async def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a short command; `truncated` if output beyond the bound was dropped. The bytes are all it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    stdout_bytes: int
    stderr_bytes: int


async def run_to_end(process: Piped, stdin: bytes, timeout_s: float, max_output_bytes: int) -> Outcome:
    """Feed it, read both outputs, wait. Raises `TimeoutError` after `timeout_s`, having killed it."""
    stdout, stderr = _Bounded(max_output_bytes), _Bounded(max_output_bytes)
    try:
        with anyio.fail_after(timeout_s):
            async with anyio.create_task_group() as group:
                group.start_soon(_feed, process, stdin)
                group.start_soon(stdout.drain, process.receive)
                group.start_soon(stderr.drain, process.receive_stderr)
            code = await process.wait()
    except TimeoutError:
        await process.kill()
        raise
    dropped = stdout.dropped or stderr.dropped
    return Outcome(code, bytes(stdout.kept), bytes(stderr.kept), dropped, stdout.total, stderr.total)


async def _feed(process: Piped, stdin: bytes) -> None:
    try:
        await process.send(stdin)
    except BrokenPipeError:
        return  # it ended, or closed its stdin, without reading everything: its exit code tells
    await process.close_stdin()


class _Bounded:
    def __init__(self, limit_bytes: int) -> None:
        self.kept = bytearray()
        self.dropped = False
        self.total = 0
        self._limit_bytes = limit_bytes

    async def drain(self, receive: Callable[[int], Awaitable[bytes]]) -> None:
        """Keep up to the limit; read the rest all the same, or the command would never end."""
        while chunk := await receive(_CHUNK_BYTES):
            self.total += len(chunk)
            room = self._limit_bytes - len(self.kept)
            self.kept += chunk[:room]
            self.dropped = self.dropped or len(chunk) > room
