"""A container's three streams over one connection to the engine, which becomes a raw stream (HTTP upgrade).

Output comes in frames of eight bytes of head (stream, three zeros, length) and the content (Docker Engine API,
ContainerAttach); on a terminal, as it is. Frames are cut anywhere: neither lines nor reads end where they do.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import anyio
import msgspec

from kandev_docker import wire
from kandev_sandbox.sockets import Stream

STDOUT, STDERR = 1, 2
CHANNEL_BYTES = 256 << 10
_HEAD_BYTES = 8
ATTACH_TIMEOUT_S = 30.0


class Channel(msgspec.Struct):
    """One stream on its way from the pump to its reader: whoever puts waits while more than its bound is held."""

    limit_bytes: int = CHANNEL_BYTES
    _chunks: deque[bytes] = msgspec.field(default_factory=deque)
    _held: int = 0
    _ended: bool = False
    _changed: anyio.Event = msgspec.field(default_factory=anyio.Event)

    async def put(self, chunk: bytes) -> None:
        """Nothing once the channel has ended: nobody reads it any more."""
        while self._held >= self.limit_bytes and not self._ended:
            await self._change()
        if not self._ended:
            self._chunks.append(chunk)
            self._held += len(chunk)
            self._tell()

    async def get(self, max_bytes: int) -> bytes:
        """The next bytes, waiting for some; b"" at the end."""
        await anyio.lowlevel.checkpoint()
        while not self._chunks:
            if self._ended:
                return b""
            await self._change()
        chunk = self._chunks.popleft()
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._held -= len(chunk)
        self._tell()
        return chunk

    def end(self) -> None:
        """Nothing more comes; what is held can still be read."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _change(self) -> None:
        await self._changed.wait()


class Attached:
    """The streams of one container. `pump` must run for anything to be received.

    `started` is set once the marker was read, or something else in its place: then the output is not `whole`.
    """

    def __init__(
        self, stream: Stream, *, stdin: Stream | None = None, terminal: bool = False, marker: bytes = b"", skip: int = 0
    ) -> None:
        """`marker` is what stdout begins with, and nobody is shown, nor are the `skip` bytes behind it.

        `stdin` is another connection, where `stream` has the output alone.
        """
        self._stream = stream
        self._stdin = stdin or stream
        self._terminal = terminal
        self._marker = marker
        self._skip = skip
        self._sending = anyio.Lock()
        self._stdin_ended = False
        self._waiting = anyio.CancelScope()
        self.stdout = Channel()
        self.stderr = Channel()
        self.started = anyio.Event()
        self.ended = anyio.Event()
        self.whole = True

    async def pump(self) -> None:
        """Until the engine closes the connection, which it does when both streams have ended, or goes away.

        Whoever runs it says then when readers see the end (`end_output`).
        """
        try:
            await (self._pump_raw() if self._terminal else self._pump_frames())
        except (OSError, EOFError):
            pass  # the engine is gone: whoever asks for the exit code hears of it
        finally:
            self.whole = self.whole and not self._marker
            self.started.set()
            self.ended.set()

    def end_output(self) -> None:
        """Nothing more comes on stdout and stderr."""
        self.stdout.end()
        self.stderr.end()

    async def _pump_raw(self) -> None:
        while chunk := await self._stream.receive():
            await self._output(chunk)

    async def _pump_frames(self) -> None:
        while True:
            head = await self._stream.receive_exactly(_HEAD_BYTES)
            left = int.from_bytes(head[4:])
            while left:
                chunk = await self._stream.receive_some(left)
                if not chunk:
                    raise EOFError
                left -= len(chunk)
                await (self.stderr.put(chunk) if head[0] == STDERR else self._output(chunk))

    async def _output(self, chunk: bytes) -> None:
        if self._marker:
            shown = min(len(self._marker), len(chunk))
            if chunk[:shown] == self._marker[:shown]:
                self._marker, chunk = self._marker[shown:], chunk[shown:]
            else:
                self._marker, self.whole = b"", False
            if not self._marker:
                self.started.set()
        if self._skip:
            self._skip, chunk = max(0, self._skip - len(chunk)), chunk[self._skip :]
        if chunk:
            await self.stdout.put(chunk)

    async def send(self, data: bytes) -> None:
        """To stdin, waiting while nobody reads it. Raises `BrokenPipeError`."""
        async with self._sending:
            if self._stdin_ended or self.ended.is_set():
                raise BrokenPipeError("stdin is closed")
            with anyio.CancelScope() as self._waiting:
                try:
                    await self._stdin.send(data)
                except OSError as error:
                    raise BrokenPipeError("nobody reads stdin") from error
            if self._waiting.cancelled_caught:
                raise BrokenPipeError("nobody reads stdin any more")

    def end_stdin(self) -> None:
        """Half-close: the engine passes it on to a container made with `StdinOnce`."""
        if not self._stdin_ended:
            self._stdin_ended = True
            with suppress(OSError):  # the other end is gone already
                self._stdin.end()

    def break_stdin(self) -> None:
        """The container has ended: the engine alone would keep whoever sends waiting."""
        self._waiting.cancel()
        self.end_stdin()

    def close(self) -> None:
        """Drop the connection; the container goes on."""
        self.end_output()
        self._stream.close()
        self._stdin.close()


async def attach(path: str, container_id: str, marker: str, *, terminal: bool = False) -> Attached:
    """All three streams from now on. A terminal shows the line end that lets the command go. Raises `EngineGone`."""
    query = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}
    stream = await _upgraded(path, container_id, query)
    end = "\r\n" if terminal else "\n"
    return Attached(stream, terminal=terminal, marker=(marker + end).encode(), skip=len(end) if terminal else 0)


async def attach_again(path: str, container_id: str, marker: str, position: int) -> Attached:
    """To one that outlived its host: what it has written on stdout since `position`, from its log, and its stdin.

    The log has whole lines. Of stderr there is nothing. Raises as `attach`.
    """
    query = {"follow": 1, "stdout": 1, "stderr": 0}
    target = f"/containers/{container_id}/logs"
    answer = await wire.ask(path, "GET", target, query, version="1.0", timeout_s=ATTACH_TIMEOUT_S)
    try:
        stdin = await _upgraded(path, container_id, {"stream": 1, "stdin": 1})
    except BaseException:
        answer.stream.close()
        raise
    attached = Attached(answer.stream, stdin=stdin, marker=f"{marker}\n".encode(), skip=position)
    attached.stderr.end()
    return attached


async def _upgraded(path: str, container_id: str, query: dict[str, int]) -> Stream:
    target = f"/containers/{container_id}/attach"
    answer = await wire.ask(path, "POST", target, query, upgrade=True, timeout_s=ATTACH_TIMEOUT_S)
    return answer.stream
