"""JSON-RPC 2.0 over lines: framing with a bound, one-pass decoding, error objects. Pure, no I/O.

ACP: one UTF-8 JSON object per line, ended by a newline. Whatever else an agent writes is a `BadLine`: counted and
kept by the peer, never fatal.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from kandev_host.protocol.envelope import deeper_than

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
CANCELLED = -32800
AUTH_REQUIRED = -32000
NOT_FOUND = -32002

HEAD_BYTES = 512
# What is passed on must be readable for every client: Python 3.11 gives up at about 1000 levels, 3.13 at 10 000.
DEPTH_LIMIT = 512

Id = int | str | None


class Message(msgspec.Struct, gc=False):
    """One line. A request has `method` and `id`, a notification only `method`, an answer `id` and `result` or `error`.

    `id` may be null: test for UNSET, not for truth. `params`, `result` and `error` are the agent's own bytes.
    """

    jsonrpc: str | UnsetType = UNSET
    method: str | UnsetType = UNSET
    id: Id | UnsetType = UNSET
    params: Raw = Raw()
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class ErrorObject(msgspec.Struct, omit_defaults=True):
    """JSON-RPC error object. Codes beyond the reserved ones are allowed (Gemini answers 400)."""

    code: int
    message: str
    data: Raw | UnsetType = UNSET


class RpcError(Exception):
    """An error answer, of either side."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class BadLine(ValueError):
    """A line that is no JSON-RPC message; the text says why."""


_decoder = msgspec.json.Decoder(Message)
_error_decoder = msgspec.json.Decoder(ErrorObject)
_encode = msgspec.json.Encoder().encode
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u[dD][89a-fA-F]..|.)", re.DOTALL)
_HEAD = re.compile(
    rb'\A\s*\{(?:\s*"jsonrpc"\s*:\s*"2\.0"\s*,)?\s*"id"\s*:\s*(-?\d+|"[^"\\]{1,200}"|null)\s*,\s*"(\w+)"'
)


def decode(line: bytes) -> Message:
    """The message of one line. Raises `BadLine`."""
    try:
        if not line.isascii():
            line.decode()  # what stays raw inside is not checked by the decoder
        if len(line) > DEPTH_LIMIT and _brackets(line) > DEPTH_LIMIT and deeper_than(line, DEPTH_LIMIT):
            raise BadLine("nested too deeply")
        message = _decoder.decode(line)
    except UnicodeDecodeError:
        raise BadLine("not UTF-8") from None
    except RecursionError:
        raise BadLine("nested too deeply") from None
    except msgspec.ValidationError as error:
        raise BadLine(f"not a JSON-RPC message: {error}") from None
    except msgspec.DecodeError as error:
        message = _decode_mended(line, error)
    if message.jsonrpc is UNSET:
        raise BadLine("not a JSON-RPC message: no `jsonrpc`")
    if message.method is UNSET and (message.id is UNSET or (message.result is UNSET and message.error is UNSET)):
        raise BadLine("not a JSON-RPC message: neither request nor answer")
    return message


def _brackets(line: bytes) -> int:
    return line.count(b"[") + line.count(b"{")


def _decode_mended(line: bytes, error: msgspec.DecodeError) -> Message:
    """Agents that cut text by UTF-16 units escape half a character: such halves become U+FFFD."""
    mended = _ESCAPE.sub(_mend, line)
    if mended == line:
        raise BadLine(f"not JSON: {error}")
    try:
        return _decoder.decode(mended)
    except (msgspec.DecodeError, RecursionError):
        raise BadLine(f"not JSON: {error}") from None


def _mend(match: re.Match[bytes]) -> bytes:
    found = match[0]
    return rb"\ufffd" if len(found) == 6 and found[2] in b"dD" else found


def decode_error(raw: Raw) -> RpcError:
    """The error of an answer, also of one that is not shaped as the specification says."""
    try:
        error = _error_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return RpcError(INTERNAL_ERROR, bytes(raw)[:HEAD_BYTES].decode(errors="replace"))
    return RpcError(error.code, error.message, None if error.data is UNSET else msgspec.json.decode(error.data))


def request(id: int, method: str, params: Any) -> bytes:
    """The line of a request."""
    return bytes(_encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})) + b"\n"


def notification(method: str, params: Any) -> bytes:
    """The line of a notification."""
    return bytes(_encode({"jsonrpc": "2.0", "method": method, "params": params})) + b"\n"


def answer(id: Id, result: Any) -> bytes:
    """The line that answers a request of the other side."""
    return bytes(_encode({"jsonrpc": "2.0", "id": id, "result": result})) + b"\n"


def error_answer(id: Id, error: RpcError) -> bytes:
    """The line that answers a request with an error."""
    shown = {"code": error.code, "message": error.message}
    if error.data is not None:
        shown["data"] = error.data
    return bytes(_encode({"jsonrpc": "2.0", "id": id, "error": shown})) + b"\n"


def head_id(head: bytes) -> tuple[Id, bool] | None:
    """Whom the head of a dropped line concerned: its id, and whether it was an answer. None if it does not tell."""
    match = _HEAD.match(head)
    if match is None:
        return None
    identifier: Id = msgspec.json.decode(match[1])
    return identifier, match[2] in {b"result", b"error"}


class Lines:
    """Splits chunks of bytes into lines of at most `limit_bytes`, holding no more than one line and one chunk.

    A longer line is dropped up to its newline; `take_dropped` gives the first bytes of each.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._parts: list[bytes] = []
        self._held = 0
        self._dropping = False
        self._dropped: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their newlines and without blank ones."""
        first, *rest = chunk.split(b"\n")
        if not rest:
            self._hold(first)
            return []
        *middle, last = rest
        lines = []
        self._hold(first)
        if self._dropping:
            self._dropping = False
        else:
            lines.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        self._parts = []
        self._held = 0
        lines += middle
        self._hold(last)
        if len(chunk) > self._limit:
            lines = [line for line in lines if self._fits(line)]
        return [line for line in lines if line and not line.isspace()]

    def finish(self) -> list[bytes]:
        """What was left without a newline when the stream ended."""
        return self.feed(b"\n") if self._held else []

    def take_dropped(self) -> list[bytes]:
        """The heads of the lines dropped since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def _hold(self, part: bytes) -> None:
        if self._dropping or not part:
            return
        self._parts.append(part)
        self._held += len(part)
        if self._held > self._limit:
            self._dropped.append(b"".join(self._parts)[:HEAD_BYTES])
            self._dropping = True
            self._parts = []
            self._held = 0

    def _fits(self, line: bytes) -> bool:
        if len(line) > self._limit:
            self._dropped.append(line[:HEAD_BYTES])
            return False
        return True


class CountedLines(Lines):
    """Also knows where in the stream each line stands, of a stream that is read from `offset` on.

    `places` are the begin and end of each line that `feed` gave last, and `offset` is how far it has been fed.
    """

    def __init__(self, limit_bytes: int, offset: int) -> None:
        super().__init__(limit_bytes)
        self.offset = offset
        self.places: list[tuple[int, int]] = []
        self._line_at = offset

    def feed(self, chunk: bytes) -> list[bytes]:
        """As `Lines.feed`."""
        lines: list[bytes] = []
        self.places = []
        at = 0
        while at < len(chunk):
            end = chunk.find(b"\n", at) + 1 or len(chunk)
            found = super().feed(chunk[at:end])
            self.places += [(self._line_at, self.offset + end)] * len(found)
            lines += found
            if chunk[end - 1] == 10:
                self._line_at = self.offset + end
            at = end
        self.offset += len(chunk)
        return lines

    def finish(self) -> list[bytes]:
        """As `Lines.finish`."""
        self.places = []
        return super().finish()
