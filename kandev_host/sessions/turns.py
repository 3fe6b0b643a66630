"""One turn: what is seen while it runs, and what it came to."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Raw

from kandev_host.models import Failure, Turn, TurnState, Usage, now
from kandev_host.protocol import acp
from kandev_host.sessions.failures import Cause, classify_text
from kandev_host.sessions.told import WHOLE_CHARS, told_error, without_warnings

SUMMARY_CHARS = 32 << 10

TurnResult = Literal[
    "completed", "cancelled", "refused", "max_tokens", "max_turn_requests", "empty", "failed"
]  # fmt: skip

_RESULTS: dict[str, TurnResult] = {
    "end_turn": "completed",
    "max_tokens": "max_tokens",
    "max_turn_requests": "max_turn_requests",
    "refusal": "refused",
    "cancelled": "cancelled",
}
EMPTY = "The agent ended its turn without a word and without a tool call"


class TurnOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn ended. `asked_to_cancel` tells a cancel of ours from an agent that gave up by itself.

    `result` is "completed" only for end_turn with some output that is no model error; "empty" is end_turn with none;
    "failed" has an `error`. `failure` says of what kind a failed or empty turn is, or that silence ended it, and
    `retry_at` when the model service said that it would work again.
    """

    result: TurnResult
    stop_reason: str | None = None
    error: str | None = None
    asked_to_cancel: bool = False
    failure: Failure | None = None
    retry_at: datetime | None = None
    summary: str | None = None
    artifacts: tuple[Any, ...] = ()
    usage: Usage | None = None

    @property
    def ok(self) -> bool:
        return self.result == "completed"

    def applied_to(self, turn: Turn) -> Turn:
        """The turn's row, ended."""
        states: dict[TurnResult, TurnState] = {"failed": "failed", "empty": "failed", "cancelled": "cancelled"}
        return msgspec.structs.replace(
            turn,
            state=states.get(self.result, "ended"),
            stop_reason=self.stop_reason,
            error=self.error,
            ended_at=now(),
        )


def outcome_told(turn: Turn) -> TurnOutcome:
    """How a turn ended, as far as its row says: why one failed, only its host knew."""
    if turn.state == "cancelled":
        return TurnOutcome(result="cancelled", error=turn.error, asked_to_cancel=True)
    if turn.state == "failed":
        return TurnOutcome(result="failed", error=turn.error, failure="host_died")
    return TurnOutcome(result=_RESULTS.get(turn.stop_reason or "", "completed"), stop_reason=turn.stop_reason)


class _ThreadStatus(msgspec.Struct):
    type: str = ""


class _Codex(msgspec.Struct, rename="camel"):
    thread_status: _ThreadStatus = msgspec.field(default_factory=_ThreadStatus)


class _Meta(msgspec.Struct):
    codex: _Codex = msgspec.field(default_factory=_Codex)


class Watch(msgspec.Struct):
    """What a running turn has shown so far. The last message is kept as its summary, up to a bound."""

    turn: Turn
    asked_to_cancel: bool = False
    has_text: bool = False
    has_tools: bool = False
    in_trouble: bool = False
    _message_id: str | None = None
    _texts: list[str] = msgspec.field(default_factory=list)
    _chars: int = 0
    _fresh: bool = False
    _whole: str = ""

    def take_chunk(self, chunk: acp.AgentMessageChunk) -> None:
        text = chunk.content.text
        if len(self._whole) <= WHOLE_CHARS:
            self._whole += text[: WHOLE_CHARS + 1]
        if not self.has_text and (text.strip() or chunk.content.type not in {"", "text"}):
            self.has_text = True
        if chunk.message_id != self._message_id:
            self._message_id = chunk.message_id
            self._fresh = True
        if self._fresh and text:
            self._texts, self._chars, self._fresh = [], 0, False
        if self._chars < SUMMARY_CHARS:
            self._texts.append(text)
            self._chars += len(text)

    def take_info(self, meta: Raw) -> None:
        """codex tells in a session_info_update that its turn broke, and then ends it as if it had not."""
        try:
            status = msgspec.json.decode(meta, type=_Meta).codex.thread_status.type
        except (msgspec.DecodeError, RecursionError):
            return
        self.in_trouble = status == "systemError" or (self.in_trouble and not status)

    def take_tool(self) -> None:
        self.has_tools = True
        self._fresh = True  # what is said after it is a new message

    @property
    def summary(self) -> str | None:
        return "".join(self._texts)[:SUMMARY_CHARS].strip() or None

    def ended(self, stop_reason: str | None) -> TurnOutcome:
        """What a stop reason means after what was seen. end_turn is no proof of success (acp.md)."""
        result = _RESULTS.get(stop_reason or "")
        error = None
        cause: Cause | None = None
        if result is None:
            error, cause = f"The agent ended its turn with the unknown stop reason {stop_reason!r}", Cause("turn")
        elif self.asked_to_cancel:
            result = "cancelled"
        elif result == "completed" and (cause := self._model_error()) is not None:
            told = without_warnings(self.summary or "")
            error = f"The agent failed: {told or 'its model could not be used'}"
        elif result == "completed" and not (self.has_text or self.has_tools):
            result, error, cause = "empty", EMPTY, Cause("turn")
        if cause is not None and result != "empty":
            result = "failed"
        return TurnOutcome(
            result=result or "failed",
            stop_reason=stop_reason,
            error=error,
            failure=cause.failure if cause is not None else None,
            retry_at=cause.retry_at if cause is not None else None,
            asked_to_cancel=self.asked_to_cancel,
            summary=self.summary,
        )

    def _model_error(self) -> Cause | None:
        """Of what kind the failure is that an agent passes off as its answer, or tells beside it (codex)."""
        if self.in_trouble:
            return classify_text(without_warnings(self.summary or ""))
        return None if self.has_tools else told_error(self._whole)

    def broke(self, error: str, cause: Cause) -> TurnOutcome:
        """The prompt was answered with an error, or not at all; after a cancel, that is how some agents obey."""
        if self.asked_to_cancel:
            return TurnOutcome(result="cancelled", error=error, asked_to_cancel=True, summary=self.summary)
        return TurnOutcome(
            result="failed", error=error, failure=cause.failure, retry_at=cause.retry_at, summary=self.summary
        )
