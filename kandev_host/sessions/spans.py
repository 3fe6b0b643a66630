"""The spans of a turn, named as OpenTelemetry's semantic conventions for GenAI have it. All those names are here.

What an agent says of a tool call is its own words, paths and commands: of a call only its kind and its id are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from kandev_host import tracing
from kandev_host.models import AgentInstance, Session, Turn, Usage
from kandev_host.protocol.acp import Json
from kandev_host.sessions.turns import TurnOutcome
from kandev_host.sessions.updates import ToolState

# ACP: ToolKind.
KINDS = frozenset({"read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"})
# ACP: StopReason.
STOP_REASONS = ("end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled")
LEFT_OPEN = "left_open"
TOOLS_KEPT = 1000
_COUNTS = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cached_read_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "cached_write_tokens",
    "gen_ai.usage.reasoning.output_tokens": "thought_tokens",
}


class TurnSpans:
    """A turn and the calls in it. As a context manager: the turn is current within, and all end with it."""

    def __init__(
        self,
        agent: AgentInstance,
        session: Session | None,
        turn: Turn,
        model: str | None,
        parent: tracing.SpanContext | None,
    ) -> None:
        known = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": agent.agent_type,
            "gen_ai.agent.name": agent.agent_type,
            "gen_ai.agent.id": agent.id,
            "gen_ai.conversation.id": session.id if session is not None else None,
            "gen_ai.request.model": model,
            "kandev.task.id": agent.task_id,
            "kandev.turn.id": turn.id,
        }
        attributes = {name: value for name, value in known.items() if value is not None}
        self.turn = tracing.begin(f"invoke_agent {agent.agent_type}", attributes, kind="client", parent=parent)
        self._agent_type = agent.agent_type
        self._model = model
        self._tools: dict[str, tracing.Span] = {}

    def __enter__(self) -> TurnSpans:
        self.turn.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tool in self._tools.values():
            tool.end(LEFT_OPEN)
        self.turn.__exit__(kind, error, trace)

    def tool(self, call_id: str, known: ToolState) -> None:
        """A call was told of, or told of again."""
        name = known.kind if known.kind in KINDS else "other"
        span = self._tools.get(call_id)
        if span is None:
            attributes = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": name,
                "gen_ai.tool.type": "extension",
                "gen_ai.tool.call.id": call_id,
                "gen_ai.agent.name": self._agent_type,
            }
            span = tracing.begin(f"execute_tool {name}", attributes, parent=self.turn.context)
            self._tools[call_id] = span
            if len(self._tools) > TOOLS_KEPT:
                self._tools.pop(next(iter(self._tools))).end(LEFT_OPEN)
        if not known.open:
            span.set({"gen_ai.tool.name": name})
            span.end("failed" if known.status == "failed" else None)
            self._tools[call_id] = tracing.NOTHING  # what else is said of it is told by nobody

    def permission(self, call_id: str) -> tracing.Span:
        """A call that waits until policy or a person has decided."""
        above = self._tools.get(call_id, self.turn).context or self.turn.context
        return tracing.begin("permission", {"gen_ai.tool.call.id": call_id}, parent=above)

    def close(self, outcome: TurnOutcome, usage: Usage) -> None:
        """What the turn came to."""
        told: dict[str, tracing.Value] = {"kandev.turn.result": outcome.result}
        if outcome.stop_reason in STOP_REASONS:
            told["gen_ai.response.finish_reasons"] = (outcome.stop_reason,)
        if usage.provider is not None:
            told["gen_ai.provider.name"] = usage.provider
        if usage.model is not None and usage.model != self._model:
            told["gen_ai.response.model"] = usage.model
        for name, field in _COUNTS.items():
            count = getattr(usage, field)
            if count is not None:
                told[name] = count
        self.turn.set(told)
        if outcome.result in {"failed", "empty"}:
            self.turn.fail(outcome.failure or outcome.result)


def outcome_of(result: Json, options: Sequence[Json]) -> tracing.Attributes:
    """How a permission was decided: the kind of the chosen option, or that none was."""
    outcome = result.get("outcome")
    chosen = outcome.get("optionId") if isinstance(outcome, dict) else None
    kind = next((option.get("kind") for option in options if option.get("optionId") == chosen), None)
    return {"kandev.permission.outcome": str(kind) if chosen is not None and kind is not None else "cancelled"}
