"""A shell's output on its way to those who follow it, and the part of it that is held for those who come late.

What commands write goes without known secrets. A terminal's screen goes as it is, to the person who types there: it is
one drawing, in which words are placed and overwritten, and prompts must not wait. What is kept of it has none (`Kept`).
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable

import anyio
import msgspec

from kandev_host.events import Event, event
from kandev_host.protocol.actions.fields import Encoding
from kandev_host.protocol.actions.shells import ShellOutput
from kandev_host.secrets import known
from kandev_host.secrets.stream import Stream as Pieces
from kandev_host.services.shells.audience import Audience
from kandev_host.sessions.audit import Stream

# A byte takes six in JSON at the worst (\u001b), and a frame is 256 KiB at most.
FRAME_BYTES = 40 << 10
# What a short frame costs beyond its bytes, so that many of them fill the ring as well.
FRAME_COST_BYTES = 64
# What may be the beginning of a secret is held back no longer than this.
PAUSE_S = 0.2


class Frame(msgspec.Struct, frozen=True):
    """Bytes of one stream, and where in the output of the shell they stand."""

    offset: int
    stream: Stream
    command_id: str | None
    data: bytes

    def told(self, shell_id: str) -> ShellOutput:
        text, encoding = encoded(self.data)
        return ShellOutput(
            shell_id=shell_id,
            command_id=self.command_id,
            stream=self.stream,
            offset=self.offset,
            bytes=len(self.data),
            data=text,
            encoding=encoding,
        )


class Output:
    """Takes bytes, waits for the audience, publishes them, and holds the last `limit_bytes`.

    Offsets count what is told, without secrets. `show_held` is to run for as long as something may come.
    """

    def __init__(self, shell_id: str, publish: Callable[[Event], None], audience: Audience, limit_bytes: int) -> None:
        self.offset = 0
        self._shell_id = shell_id
        self._publish = publish
        self._audience = audience
        self._limit = limit_bytes
        self._ring: deque[Frame] = deque()
        self._ring_bytes = 0
        self._held: dict[Stream, bytes] = {}
        self._pieces: dict[Stream, Pieces] = {}
        self._saying = anyio.Lock()
        self._came = anyio.Event()
        self._command_id: str | None = None

    async def take(self, stream: Stream, data: bytes, command_id: str | None = None) -> None:
        """Part of a stream, cut anywhere: a character that is not whole waits for its rest, and so does a secret."""
        if stream == "terminal":
            await self._take(stream, data, command_id)
            return
        async with self._saying:
            pieces = self._pieces.setdefault(stream, Pieces(known))
            await self._take(stream, pieces.feed(data), command_id)
            self._came.set()

    async def show_held(self) -> None:
        """For ever: what was held back is told when nothing more comes."""
        while True:
            await self._came.wait()
            self._came = anyio.Event()
            with anyio.move_on_after(PAUSE_S) as quiet:
                await self._came.wait()
            if quiet.cancelled_caught:
                async with self._saying:
                    for stream, pieces in self._pieces.items():
                        await self._take(stream, pieces.pause(), self._command_id)

    async def _take(self, stream: Stream, data: bytes, command_id: str | None) -> None:
        self._command_id = command_id
        data = self._held.pop(stream, b"") + data
        end = len(data) - _unfinished(data)
        if end < len(data):
            self._held[stream] = data[end:]
        at = 0
        while at < end:
            stop = _cut(data, at, end)
            await self._say(stream, data[at:stop], command_id)
            at = stop

    async def flush(self, command_id: str | None = None) -> None:
        """What waited for its rest: there will be none."""
        async with self._saying:
            pieces, self._pieces = self._pieces, {}
            for stream, each in pieces.items():
                await self._take(stream, each.finish(), command_id)
            held, self._held = self._held, {}
            for stream, data in held.items():
                await self._say(stream, data, command_id)

    async def _say(self, stream: Stream, data: bytes, command_id: str | None) -> None:
        await self._audience.room(len(data))
        frame = Frame(self.offset, stream, command_id, data)
        self.offset += len(data)
        self._ring.append(frame)
        self._ring_bytes += len(data) + FRAME_COST_BYTES
        while self._ring_bytes > self._limit and len(self._ring) > 1:
            self._ring_bytes -= len(self._ring.popleft().data) + FRAME_COST_BYTES
        self._publish(event("shell.output", frame.told(self._shell_id), shell_id=self._shell_id, to_all=False))

    def read(self, offset: int, limit_bytes: int) -> tuple[list[ShellOutput], int, int]:
        """What is held from `offset` on, where to read on, and how many bytes before it are not held any more."""
        oldest = self._ring[0].offset if self._ring else self.offset
        start = min(max(offset, oldest), self.offset)
        found, at, room = [], start, limit_bytes
        for frame in self._ring:
            end = frame.offset + len(frame.data)
            if end <= at or room <= 0:
                continue
            part = frame.data[at - frame.offset :][:room]
            found.append(Frame(at, frame.stream, frame.command_id, part).told(self._shell_id))
            at += len(part)
            room -= len(part)
        return found, at, max(0, oldest - offset)


def encoded(data: bytes, *, cut: bool = False) -> tuple[str, Encoding]:
    """As text, or in base64. Where the middle was `cut` out, half a character at the seam makes no bytes of a text."""
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        if cut:
            text = data.decode(errors="replace")
            if text.count("\ufffd") - data.count("\ufffd".encode()) <= 6:  # three bytes on each side, at the most
                return text, "utf-8"
    return base64.b64encode(data).decode(), "base64"


def _unfinished(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character of UTF-8."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return back if needed > back else 0
    return 0


def _cut(data: bytes, at: int, end: int) -> int:
    """Where a frame ends that begins at `at`: not within a character."""
    stop = min(at + FRAME_BYTES, end)
    if stop < end:
        for back in range(4):
            if data[stop - back] & 0xC0 != 0x80:
                return stop - back
    return stop
