"""Lines of the older shape: an object without `jsonrpc`, with a `type` of six and an object `data`. Pure.

The Kandev plan's containers write them (8.4, ACP Protocol Implementation). Who speaks is known from the pipe: the
`agent_id` and `task_id` of a line are never read, nor is its `timestamp`.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec
from msgspec import UNSET, Raw, UnsetType

from kandev_host.events import Event
from kandev_host.models import AgentInstance, LogLevel
from kandev_host.protocol.envelope import deeper_than
from kandev_host.protocol.jsonrpc import DEPTH_LIMIT
from kandev_host.protocol.notifications import (
    ErrorPayload,
    LogMetadata,
    LogPayload,
    Payload,
    ProgressPayload,
    StatusPayload,
)
from kandev_host.sessions.updates import MESSAGE_CHARS, Voice

LegacyType = Literal["progress", "log", "result", "error", "status", "heartbeat"]
AGENT_ERROR = "AGENT_ERROR"
ARTIFACTS_BYTES = 64 << 10
PATH_CHARS = 4096
_COUNT_LIMIT = 1 << 53  # whole numbers that every JSON reader holds exactly
_LEVELS: dict[Any, LogLevel] = {level: level for level in get_args(LogLevel)}
_LEVELS |= {"warn": "warning", "fatal": "error", "critical": "error", "trace": "debug"}


class LegacyLine(msgspec.Struct, frozen=True):
    """One line, read. `line` is the whole of it, as it was sent."""

    type: LegacyType
    data: dict[str, Any]
    line: bytes

    def text(self, *names: str) -> str:
        """The first of these fields that is a text, up to the bound of messages."""
        found = next((self.data[name] for name in names if isinstance(self.data.get(name), str)), "")
        return str(found)[:MESSAGE_CHARS]


class _Shape(msgspec.Struct):
    type: LegacyType
    data: dict[str, Any]
    jsonrpc: Raw | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Shape)


def read(line: bytes) -> LegacyLine | None:
    """The line of the older shape, or None if it is none."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        line.decode()  # what is passed on as it is, is not checked by the decoder
        if line.count(b"[") + line.count(b"{") > DEPTH_LIMIT and deeper_than(line, DEPTH_LIMIT):
            return None
        shape = _decoder.decode(line)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    return LegacyLine(shape.type, shape.data, line) if shape.jsonrpc is UNSET else None


def told(
    found: LegacyLine,
    voice: Voice,
    agent: AgentInstance,
    *,
    turn_id: str | None,
    session_id: str | None,
    at: datetime | None = None,
) -> Event | None:
    """The notification of a line, the line itself under `update`; None for a heartbeat, which says nothing.

    A result is told as a log: `acp.result` is the end of a turn, and only the host ends turns.
    """
    ids: dict[str, Any] = {**voice.ids(turn_id, session_id), "update": Raw(found.line)}
    payload: Payload
    match found.type:
        case "heartbeat":
            return None
        case "progress":
            return voice.event("acp.progress", _progress(found, ids), at)
        case "error":
            payload = ErrorPayload(**ids, code=AGENT_ERROR, message=error_text(found))
            return voice.event("acp.error", payload, at)
        case "status":
            payload = StatusPayload(**ids, status=agent.status, activity=agent.activity, stalled_at=agent.stalled_at)
            return voice.event("acp.status", payload, at)
        case _:
            level = found.data.get("level")
            payload = LogPayload(
                **ids,
                level=_LEVELS.get(level.lower(), "info") if isinstance(level, str) else "info",
                message=summary(found) if found.type == "result" else found.text("message"),
                metadata=LogMetadata(type=found.type),
            )
            return voice.event("acp.log", payload, at)


def _progress(found: LegacyLine, ids: dict[str, Any]) -> ProgressPayload:
    data = found.data
    return ProgressPayload(
        **ids,
        progress=_percent(data.get("progress")),
        message=found.text("message"),
        current_file=found.text("current_file")[:PATH_CHARS] or None,
        files_processed=_count(data.get("files_processed")),
        total_files=_count(data.get("total_files")),
    )


def _percent(value: Any) -> int:
    if type(value) not in {int, float} or math.isnan(value):
        return 0
    return int(min(100, max(0, value)))


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _COUNT_LIMIT else None


def error_text(found: LegacyLine) -> str:
    """What an error line says."""
    return found.text("message", "error") or "The agent told of an error without a word"


def summary(found: LegacyLine) -> str:
    """What a result line says came of the work."""
    return found.text("summary", "message")


def artifacts(found: LegacyLine) -> tuple[Any, ...]:
    """What a result line lists as made; nothing if that is no list, or too long to be passed on."""
    listed = found.data.get("artifacts")
    if not isinstance(listed, list) or len(msgspec.json.encode(listed)) > ARTIFACTS_BYTES:
        return ()
    return tuple(listed)


def has_failed(found: LegacyLine) -> bool:
    """Does a result line say that the work failed?"""
    return found.text("status").lower() in {"failed", "failure", "error"}
