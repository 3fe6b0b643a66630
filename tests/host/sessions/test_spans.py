from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from kandev_host import tracing
from kandev_host.models import AgentInstance, Turn, Usage
from kandev_host.sessions.spans import TOOLS_KEPT, TurnSpans, outcome_of
from kandev_host.sessions.turns import TurnOutcome
from kandev_host.sessions.updates import ToolState
from kandev_host.tracing import Attributes, Kind, SpanContext

AGENT = AgentInstance(task_id="t", agent_type="demo", runtime="bwrap")
TURN = Turn(agent_id=AGENT.id, task_id="t", prompt=[], created_by="me")


class Recorded:
    def __init__(self, name: str, context: SpanContext, parent: SpanContext | None, attributes: Attributes) -> None:
        self.name, self.context, self.parent = name, context, parent
        self.attributes = dict(attributes)
        self.error: str | None = "not over"

    def set(self, attributes: Attributes) -> None:
        self.attributes |= attributes

    def end(self, error: str | None) -> None:
        self.error = error


class Tracer:
    def __init__(self) -> None:
        self.spans: list[Recorded] = []

    def start(
        self, name: str, kind: Kind, attributes: Attributes, parent: SpanContext | None, links: Sequence[SpanContext]
    ) -> Recorded:
        del kind, links
        context = SpanContext("a" * 32, f"{len(self.spans) + 1:016x}")
        self.spans.append(Recorded(name, context, parent, attributes))
        return self.spans[-1]


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    tracer = Tracer()
    with tracing.using(tracer):
        yield tracer


def turn() -> TurnSpans:
    return TurnSpans(AGENT, None, TURN, None, None)


def test_tool_calls_end_as_the_agent_says_or_with_the_turn(tracer: Tracer) -> None:
    with turn() as spans:
        for call_id, status in (("good", "completed"), ("bad", "failed"), ("open", "in_progress")):
            spans.tool(call_id, ToolState(kind="read", status="pending"))
            spans.tool(call_id, ToolState(kind="edit", status=status))
            spans.tool(call_id, ToolState(kind="edit", status=status))
    ended = {str(span.attributes.get("gen_ai.tool.call.id")): span for span in tracer.spans}
    assert {id: span.error for id, span in ended.items()} == {
        "None": None,
        "good": None,
        "bad": "failed",
        "open": "left_open",
    }
    assert ended["good"].attributes["gen_ai.tool.name"] == "edit"
    assert {span.parent for span in tracer.spans[1:]} == {tracer.spans[0].context}


def test_what_an_agent_calls_a_tool_is_not_told(tracer: Tracer) -> None:
    with turn() as spans:
        spans.tool("1", ToolState(kind="rm -rf secret", title="secret"))
    assert tracer.spans[1].name == "execute_tool other"
    assert "secret" not in str(tracer.spans[1].attributes)


def test_of_a_turn_with_many_calls_a_bounded_number_is_kept(tracer: Tracer) -> None:
    with turn() as spans:
        for number in range(TOOLS_KEPT + 2):
            spans.tool(str(number), ToolState(kind="read", status="pending"))
        errors = [span.error for span in tracer.spans[1:]]
    assert errors == ["left_open"] * 2 + ["not over"] * TOOLS_KEPT


def test_a_permission_belongs_to_its_call_and_says_how_it_was_decided(tracer: Tracer) -> None:
    options = [{"optionId": "1", "kind": "allow_once"}, {"optionId": "2", "kind": "reject_once"}]
    with turn() as spans:
        spans.tool("known", ToolState(kind="edit"))
        with spans.permission("known") as span:
            span.set(outcome_of({"outcome": {"outcome": "selected", "optionId": "2"}}, options))
        with spans.permission("unknown") as span:
            span.set(outcome_of({"outcome": {"outcome": "cancelled"}}, options))
    whole, call, first, second = tracer.spans
    assert (first.parent, second.parent) == (call.context, whole.context)
    outcomes = [span.attributes["kandev.permission.outcome"] for span in (first, second)]
    assert outcomes == ["reject_once", "cancelled"]


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (TurnOutcome(result="completed", stop_reason="end_turn"), None),
        (TurnOutcome(result="cancelled", stop_reason="cancelled"), None),
        (TurnOutcome(result="failed", stop_reason="their own words", error="their words", failure="turn"), "turn"),
        (TurnOutcome(result="empty", error="their words"), "empty"),
    ],
    ids=["completed", "cancelled", "failed", "empty"],
)
def test_a_turn_tells_its_end_by_words_of_the_host(tracer: Tracer, outcome: TurnOutcome, error: str | None) -> None:
    usage = Usage(id="u", turn_id=TURN.id, agent_id=AGENT.id, task_id="t", source="agent", input_tokens=7, model="m")
    with turn() as spans:
        spans.close(outcome, usage)
    (span,) = tracer.spans
    assert span.error == error
    assert span.attributes["gen_ai.usage.input_tokens"] == 7
    assert span.attributes["gen_ai.response.model"] == "m"
    assert "their" not in str(span.attributes)
