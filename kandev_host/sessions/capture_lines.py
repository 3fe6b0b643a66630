"""What went over the pipes of an agent, as JSON lines: {"at": …, "dir": "in" | "out" | "err", "line": …}. Pure.

A line that is JSON stands there as it came, unread; any other is a string. Beside `line` there may be `cut_bytes`, how
much of a line was left out, and `not_utf8`. `dropped_bytes` in place of `line`: so much is missing here. What a person
filled into a form of the agent (elicitation/create) is not kept: it is for the agent alone.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from kandev_host.secrets import MARK, KnownOf, Redactor

Direction = Literal["in", "out", "err"]

LINE_BYTES = 1 << 20
STRING_BYTES = 1 << 17
# A key that is cut in its middle is not known any more: so much is left out before each cut.
MARGIN_BYTES = 4096
FILLED = b'"action":"accept"'

_decode_lines = msgspec.json.Decoder(msgspec.Raw).decode_lines
_decode = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.encode


class Framer:
    """One direction of one agent: feed it what comes, write what it returns. Holds a line, at most 1 MiB of it."""

    def __init__(self, direction: Direction, redactor: Redactor | KnownOf) -> None:
        self._direction = direction
        self._redactor = redactor
        self._held = bytearray()
        self._cut = 0
        self._skipping = False
        self.dropped = 0

    @property
    def _margin(self) -> int:
        return max(self._redactor.longest, MARGIN_BYTES)

    def feed(self, data: bytes, at: str) -> bytes:
        """The lines that end in `data`, framed. `at` is the time for people, ISO 8601."""
        if self._skipping:
            head, newline, data = data.partition(b"\n")
            self.dropped += len(head) + len(newline)
            if not newline:
                return b""
            self._skipping = False
        out = self.confession(at)
        if self._cut:
            head, newline, data = data.partition(b"\n")
            self._hold(head)
            if not newline:
                return out
            out += self._take_held(at)
        end = data.rfind(b"\n") + 1
        if end:
            if self._held:
                block = bytes(self._held) + data[:end]
                self._held.clear()
            else:
                block = data[:end]
            out += self._framed(block, at)
            data = data[end:]
        self._hold(data)
        return out

    def gap(self, size: int) -> None:
        """So much was dropped before it came here: the rest of that line is not kept either, nor what is held of it."""
        self.dropped += size + len(self._held) + self._cut
        self._held.clear()
        self._cut = 0
        self._skipping = True

    def finish(self, at: str) -> bytes:
        """Nothing more comes: what has no newline is a line all the same."""
        return self.confession(at) + (self._take_held(at) if self._held else b"")

    def confession(self, at: str) -> bytes:
        """A line about what was dropped; nothing if nothing was."""
        if not self.dropped:
            return b""
        dropped, self.dropped = self.dropped, 0
        return _encode({"at": at, "dir": self._direction, "dropped_bytes": dropped}) + b"\n"

    def _hold(self, data: bytes) -> None:
        room = LINE_BYTES + self._margin - len(self._held)
        self._held += data[:room]
        self._cut += max(0, len(data) - room)

    def _take_held(self, at: str) -> bytes:
        line, cut = unfilled(bytes(self._held)) if self._direction == "in" else bytes(self._held), self._cut
        self._held.clear()
        self._cut = 0
        return self._record(line, at, cut)

    def _framed(self, block: bytes, at: str) -> bytes:
        """Whole lines. Where all are JSON, as of a peer that keeps to its protocol, in a few steps for all of them."""
        if self._direction == "in" and FILLED in block:
            block = b"\n".join(map(unfilled, block.split(b"\n")))
        if self._direction != "err":
            clean = self._redactor.clean(block)
            prefix = self._prefix(at)
            framed = prefix + clean[:-1].replace(b"\n", b"}\n" + prefix) + b"}\n"
            if _is_utf8(clean) and _are_records(framed):
                return framed
        return b"".join([self._record(line, at) for line in block[:-1].split(b"\n")])

    def _record(self, line: bytes, at: str, cut: int = 0) -> bytes:
        clean = self._redactor.clean(line)
        utf8 = _is_utf8(clean)
        if not cut and utf8 and len(clean) <= LINE_BYTES:
            if not _is_json(clean) and clean != line and _is_json(line):
                clean = self._redactor.clean_json(line)
            if _is_json(clean):
                return self._prefix(at) + clean + b"}\n"
        limit = STRING_BYTES if not cut else min(STRING_BYTES, max(0, len(clean) - self._margin))
        cut += max(0, len(clean) - limit)
        clean = clean[:limit]
        record: dict[str, Any] = {"at": at, "dir": self._direction, "line": clean.decode("utf-8", "replace")}
        if cut:
            record["cut_bytes"] = cut
        if not utf8:
            record["not_utf8"] = True
        return _encode(record) + b"\n"

    def _prefix(self, at: str) -> bytes:
        return f'{{"at":"{at}","dir":"{self._direction}","line":'.encode()


def unfilled(line: bytes) -> bytes:
    """An answer of the host to a form, without the values; any other line as it is."""
    if FILLED not in line:
        return line
    try:
        message = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.json.encode(MARK)
    result = message.get("result") if isinstance(message, dict) else None
    content = result.get("content") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(content, dict):
        return line
    result["content"] = dict.fromkeys(content, MARK)
    return msgspec.json.encode(message)


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_json(line: bytes) -> bool:
    try:
        _decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _are_records(framed: bytes) -> bool:
    """Is every line of it one JSON value?

    Two in a line are not told from one by msgspec, but counted; one over two lines cannot be, as each begins anew.
    """
    try:
        return len(_decode_lines(framed)) == framed.count(b"\n")
    except (msgspec.DecodeError, RecursionError):
        return False
