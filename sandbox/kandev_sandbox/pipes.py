"""The ends of pipes as anyio byte streams: as fast as the pipe, and without a buffer of their own."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream, ByteSendStream

PIPE_BYTES = 1 << 20


def pipe() -> tuple[int, int]:
    """A pipe of 1 MiB where the user's share of pipe memory allows it, else of the default size."""
    reader, writer = os.pipe()
    with suppress(PermissionError):  # over /proc/sys/fs/pipe-user-pages-soft; a smaller pipe is only slower
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer


class PipeReader(ByteReceiveStream):
    """Reads what is there. At most one task may read at a time (else `anyio.BusyResourceError`)."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor, never blocking, for who waits for several at once; -1 once closed."""
        return self._descriptor

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Up to `max_bytes`, at least one. Raises `anyio.EndOfStream`, or `anyio.ClosedResourceError` after close."""
        # A flooding jail must not keep the loop to itself: other tasks run between two reads.
        await anyio.lowlevel.checkpoint()
        while True:
            if self._descriptor < 0:
                raise anyio.ClosedResourceError
            received: bytes | None
            try:
                received = os.read(self._descriptor, max_bytes)
            except BlockingIOError:
                received = None  # and not waited here: an error that is being handled is kept, with its frames
            if received is None:
                await anyio.wait_readable(self._descriptor)
            elif received:
                return received
            else:
                raise anyio.EndOfStream

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close at once; a task that waits in `receive` gets `anyio.ClosedResourceError`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            anyio.notify_closing(descriptor)
            os.close(descriptor)


class PipeWriter(ByteSendStream):
    """Writes, waiting while the pipe is full. At most one task may write at a time."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def send(self, item: bytes) -> None:
        """Write all of it. Raises `anyio.BrokenResourceError` when nobody reads any more."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(item)
        while rest:
            if self._descriptor < 0:
                raise anyio.ClosedResourceError
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._descriptor)
            except BrokenPipeError as error:
                raise anyio.BrokenResourceError from error
        await anyio.lowlevel.cancel_shielded_checkpoint()  # after it: whoever reads need not wait for our other tasks

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close at once: the reader sees the end."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            anyio.notify_closing(descriptor)
            os.close(descriptor)
