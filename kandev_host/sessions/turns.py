"""One turn: what is seen while it runs, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from kandev_host.models import Turn, TurnState, Usage, now
from kandev_host.protocol import acp

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOutcome:
    """How a turn ended. `asked_to_cancel` tells a cancel of ours from an agent that gave up by itself.

    `result` is "completed" only for end_turn with some output; "empty" is end_turn with none; "failed" has an `error`.
    """

    result: TurnResult
    stop_reason: str | None = None
    error: str | None = None
    asked_to_cancel: bool = False
    summary: str | None = None
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


@dataclass(slots=True)
class Watch:
    """What a running turn has shown so far. The last message is kept as its summary, up to a bound."""

    turn: Turn
    asked_to_cancel: bool = False
    has_text: bool = False
    has_tools: bool = False
    _message_id: str | None = None
    _texts: list[str] = field(default_factory=list)
    _chars: int = 0
    _fresh: bool = False

    def take_chunk(self, chunk: acp.AgentMessageChunk) -> None:
        text = chunk.content.text
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
        if result is None:
            result, error = "failed", f"The agent ended its turn with the unknown stop reason {stop_reason!r}"
        elif self.asked_to_cancel:
            result = "cancelled"
        elif result == "completed" and not (self.has_text or self.has_tools):
            result, error = "empty", EMPTY
        return TurnOutcome(
            result=result,
            stop_reason=stop_reason,
            error=error,
            asked_to_cancel=self.asked_to_cancel,
            summary=self.summary,
        )

    def broke(self, error: str) -> TurnOutcome:
        """The prompt was answered with an error, or not at all; after a cancel, that is how some agents obey."""
        return TurnOutcome(
            result="cancelled" if self.asked_to_cancel else "failed",
            error=error,
            asked_to_cancel=self.asked_to_cancel,
            summary=self.summary,
        )
