"""The WebSocket message: `{"id", "type", "action", "payload", "timestamp"}`, and `seq` where there is one.

Pure: bytes in, bytes out. A request keeps its payload undecoded until its action is known. Unknown envelope fields
are ignored, so that newer clients can talk to older hosts; unknown *payload* fields are refused by each action.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from kandev_host.errors import BadRequest, KandevError
from kandev_host.protocol.complaints import complaint

if TYPE_CHECKING:
    from kandev_host.events import Event

ID_LIMIT_CHARS = 128
ACTION_LIMIT_CHARS = 128
EMPTY = Raw(b"{}")

_RUNS = re.compile(rb"\[+|\]+")
_SQUARE = bytes.maketrans(b"{}", b"[]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# High and not before a low one, or low and not behind a high one.
_HALF_PAIR = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}.{6}))",
    re.S,
)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


class Request(msgspec.Struct, frozen=True):
    """What a client sends. `timestamp` and whatever else it says is not read.

    `traceparent` and `tracestate` are those of W3C Trace Context: the host's spans go on with that trace.
    """

    id: Annotated[str, Meta(min_length=1, max_length=ID_LIMIT_CHARS)]
    type: Literal["request"]
    action: Annotated[str, Meta(min_length=1, max_length=ACTION_LIMIT_CHARS)]
    payload: Raw = EMPTY
    traceparent: str = ""
    tracestate: str = ""


class Message(msgspec.Struct, gc=False):
    """What the host sends. Responses to reads carry the `seq` they were read at, durable events their own."""

    id: str | None
    type: Literal["response", "notification", "error"]
    action: str | None
    payload: Any
    timestamp: datetime
    seq: int | UnsetType = UNSET


class _Addressed(msgspec.Struct):
    id: Any = None
    action: Any = None


_requests = msgspec.json.Decoder(Request)
_addresses = msgspec.json.Decoder(_Addressed)
_encoder = msgspec.json.Encoder()


class BadEnvelope(BadRequest):
    """Not a request. `id` and `action` are the client's, where they could be read."""

    def __init__(self, message: str, id: str | None = None, action: str | None = None) -> None:
        super().__init__(message)
        self.id = id
        self.action = action


def decode_request(frame: bytes, depth_limit: int = 64) -> Request:
    """The request in `frame`. Raises `BadEnvelope` for anything else."""
    if frame.count(b"[") + frame.count(b"{") > depth_limit and deeper_than(frame, depth_limit):
        raise BadEnvelope(f"The message is nested deeper than {depth_limit} levels")
    try:
        return _requests.decode(frame)
    except msgspec.ValidationError as error:
        id, action = address(frame)
        wrong = complaint(Request, str(error), "the message")
        raise BadEnvelope(f"Not a request: {wrong.message}", id, action) from None
    except (ValueError, RecursionError) as error:
        # A msgspec DecodeError is a ValueError, and so is the UnicodeDecodeError of a string that is not UTF-8.
        id, action = address(frame)
        torn = id is not None and _SURROGATE.search(frame) is not None
        raise BadEnvelope(
            "A string holds half a surrogate pair" if torn else f"Not JSON: {error}", id, action
        ) from None


def deeper_than(frame: bytes, limit: int) -> bool:
    """Does any bracket outside strings open deeper than `limit`? No recursion, and some 30 ms a MiB at the worst."""
    unescaped = frame.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(unescaped.split(b'"')[::2]).translate(_SQUARE, _NOT_BRACKETS)
    # Taking the innermost pairs away takes one level away, and most of the brackets of ordinary messages.
    for _ in range(min(limit, 2)):
        brackets = brackets.replace(b"[]", b"")
        limit -= 1
    depth = 0
    for run in _RUNS.findall(brackets):
        if run.startswith(b"["):
            depth += len(run)
            if depth > limit:
                return True
        else:
            depth -= len(run)
    return False


def address(frame: bytes) -> tuple[str | None, str | None]:
    """The `id` and `action` that a frame claims, as far as they are usable; quicker than decoding it as a request.

    JSON's grammar has escapes of half a surrogate pair, which no text holds: elsewhere in the frame they hide neither.
    """
    found, torn = _addressed(frame), False
    if found is None and _SURROGATE.search(frame) is not None:
        found, torn = _addressed(_whole(frame)), True
    if found is None:
        return None, None
    return _usable(found.id, ID_LIMIT_CHARS, torn=torn), _usable(found.action, ACTION_LIMIT_CHARS, torn=torn)


def _addressed(frame: bytes) -> _Addressed | None:
    try:
        return _addresses.decode(frame)
    except (ValueError, RecursionError):
        return None


def _whole(frame: bytes) -> bytes:
    """With U+FFFD for each half of a surrogate pair; what an escaped backslash begins is none."""
    unescaped = frame.replace(rb"\\", b"\0")
    return _HALF_PAIR.sub("\ufffd".encode(), unescaped).replace(b"\0", rb"\\")


def _usable(said: Any, limit_chars: int, *, torn: bool) -> str | None:
    usable = isinstance(said, str) and 0 < len(said) <= limit_chars and not (torn and "\ufffd" in said)
    return said if usable else None


def encode_response(id: str, action: str, payload: Any, seq: int | UnsetType = UNSET) -> bytes:
    """An answer. Raises `TypeError` when the payload is not JSON."""
    return _encoder.encode(Message(id, "response", action, payload, datetime.now(UTC), seq))


def encode_error(id: str | None, action: str | None, error: KandevError) -> bytes:
    """A refusal: `{"code", "message", "details"}`."""
    return _encoder.encode(Message(id, "error", action, error_payload(error), datetime.now(UTC)))


def error_payload(error: KandevError) -> dict[str, Any]:
    """What a refusal says."""
    return {"code": error.code, "message": error.message, "details": error.details}


def encode_answer(id: str, action: str, payload: Raw, is_error: bool) -> bytes:
    """A response or a refusal whose payload is JSON already."""
    return _encoder.encode(Message(id, "error" if is_error else "response", action, payload, datetime.now(UTC)))


def encode_notification(event: Event) -> bytes:
    """An event as its subscribers get it; the payload is embedded as it was stored."""
    seq = UNSET if event.seq is None else event.seq
    return _encoder.encode(Message(event.id, "notification", event.action, event.payload, event.created_at, seq))
