"""A secret that an agent says in pieces, over several message chunks, is taken out as well.

A chunk whose end may be the beginning of a secret waits for the next one, whole; nearly always it then goes out as it
came. Other updates, the turn's end and a pause of 0.2 s end the wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import replace

from kandev_host.events import Event
from kandev_host.protocol import acp
from kandev_host.secrets import MARK, Redactor
from kandev_host.secrets.stream import begun, rest_of
from kandev_host.sessions.updates import Voice

PAUSE_S = 0.2
HELD_CHUNKS = 512
HELD_BYTES = 64 << 10


class Piece(msgspec.Struct, frozen=True):
    """One chunk, and what it takes to tell of it. `place` is where its line begins in the agent's output."""

    params: acp.SessionUpdate
    chunk: acp.Chunk
    kind: str
    turn_id: str | None
    at: datetime
    place: int = 0

    def alone(self) -> Piece:
        """A copy, to be held: else it would hold the agent's whole line, with all in it that nobody reads."""
        meta = self.params.meta if self.params.meta is UNSET else self.params.meta.copy()
        params = msgspec.structs.replace(self.params, update=self.params.update.copy(), meta=meta)
        return replace(self, params=params, chunk=msgspec.structs.replace(self.chunk, meta=UNSET))

    @property
    def message(self) -> tuple[str, str, str | None]:
        """Which message it is a piece of, as far as that is told."""
        return self.params.session_id, self.kind, self.chunk.message_id

    @property
    def text(self) -> bytes:
        return self.chunk.content.text.encode("utf-8", "surrogatepass")

    def saying(self, text: bytes) -> Piece:
        """The same with another text."""
        said = text.decode("utf-8", "replace")
        update = msgspec.json.decode(self.params.update)
        update["content"]["text"] = said
        content = msgspec.structs.replace(self.chunk.content, text=said)
        params = msgspec.structs.replace(self.params, update=Raw(msgspec.json.encode(update)))
        return replace(self, params=params, chunk=msgspec.structs.replace(self.chunk, content=content))


class Speech:
    """The message that an agent is saying. `free` is asked first: for most chunks nothing else is done."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._held: list[Piece] = []
        self._bytes = 0
        self._shown = b""  # the end of what was told at a pause, and may be the beginning of a secret
        self._message: tuple[str, str, str | None] | None = None

    @property
    def _joined(self) -> bytes:
        return b"".join(piece.text for piece in self._held)

    @property
    def waits(self) -> bool:
        """Is a chunk held back?"""
        return bool(self._held)

    @property
    def held_from(self) -> int | None:
        """Where what is held back begins."""
        return self._held[0].place if self._held else None

    def free(self, text: str) -> bool:
        """May a chunk be told at once, as it is?"""
        return not (self._held or self._shown or self._voice.secrets.now.may_begin(text))

    def take(self, piece: Piece) -> list[Event]:
        """What may be told now, in order."""
        told, piece = [], piece.alone()
        if piece.message != self._message:
            told, self._message = self.end(), piece.message
        self._held.append(piece)
        self._bytes += len(piece.params.update)
        if len(self._held) > HELD_CHUNKS or self._bytes > HELD_BYTES:
            return told + self.pause()
        return told + self._free_ones(self._voice.secrets.now)

    def _free_ones(self, redactor: Redactor) -> list[Event]:
        """Those in which no secret begins that may go on in the next chunk."""
        joined = self._joined
        if self._shown:
            rest = rest_of(self._shown, joined, redactor)
            if rest is None:  # still on its way
                return []
            self._shown = b""
            if rest:
                joined = MARK.encode() + joined[rest:]
                self._held = _saying(self._held, joined)
        found = redactor.found(joined)
        open_bytes = begun(redactor.clean_values(joined) if found else joined, redactor)
        if not open_bytes:
            return self._tell(len(self._held), redactor)
        if found:
            return []
        kept = number = 0
        for number in range(len(self._held), 0, -1):
            kept += len(self._held[number - 1].text)
            if kept >= open_bytes:
                break
        return self._tell(number - 1, redactor)

    def pause(self) -> list[Event]:
        """Nothing came for a while: what is held back is told although its rest may still come."""
        held = self._joined
        self._shown = (self._shown + held)[-max(self._voice.secrets.now.longest, 1) :] if held else self._shown
        return self._tell(len(self._held), self._voice.secrets.now)

    def end(self) -> list[Event]:
        """The message is over, or something else was said."""
        self._shown, self._message = b"", None
        return self._tell(len(self._held), self._voice.secrets.now)

    def _tell(self, count: int, redactor: Redactor) -> list[Event]:
        """The first so many that are held: as they came, or the first with all of their text, without secrets."""
        told, self._held = self._held[:count], self._held[count:]
        self._bytes = sum(len(piece.params.update) for piece in self._held)
        joined = b"".join(piece.text for piece in told)
        clean = redactor.clean(joined)
        if clean != joined:
            told = _saying(told, clean)
        return [self._voice.chunk(each.params, each.chunk, each.kind, each.turn_id, each.at) for each in told]


def _saying(pieces: Sequence[Piece], text: bytes) -> list[Piece]:
    """The same pieces, with this text in place of theirs: all of it in the first."""
    return [piece.saying(b"" if number else text) for number, piece in enumerate(pieces)]
