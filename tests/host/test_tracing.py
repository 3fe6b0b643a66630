from __future__ import annotations

from collections.abc import Iterator, Sequence

import anyio
import pytest

from kandev_host import tracing
from kandev_host.errors import NotFound
from kandev_host.log_ids import current
from kandev_host.tracing import NOTHING, Attributes, Kind, SpanContext, read_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Recorded:
    def __init__(self, name: str, context: SpanContext, parent: SpanContext | None, *, fails: bool) -> None:
        self.name, self.context, self.parent = name, context, parent
        self.error: str | None = "not over"
        self.fails = fails

    def set(self, attributes: Attributes) -> None:
        del attributes

    def end(self, error: str | None) -> None:
        if self.fails:
            raise RuntimeError("full")
        self.error = error


class Tracer:
    def __init__(self) -> None:
        self.spans: list[Recorded] = []
        self.fails = False

    def start(
        self, name: str, kind: Kind, attributes: Attributes, parent: SpanContext | None, links: Sequence[SpanContext]
    ) -> Recorded:
        del kind, attributes, links
        context = SpanContext(TRACE if parent is None else parent.trace_id, f"{len(self.spans) + 1:016x}")
        self.spans.append(Recorded(name, context, parent, fails=self.fails))
        return self.spans[-1]


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    tracer = Tracer()
    with tracing.using(tracer):
        yield tracer


@pytest.mark.parametrize(
    ("told", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", True),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_w3c_has_it_or_not_at_all(told: str, sampled: bool | None) -> None:
    found = read_context(told)
    assert (None if found is None else found.sampled) is sampled


def test_a_tracestate_that_is_none_is_left_out() -> None:
    told = f"00-{TRACE}-{SPAN}-01"
    states = [
        read_context(told, state) for state in ("a=1", "a=1 , b@c=2,", "a=\n", "x" * 600, "no room left", "a=1,a=2")
    ]
    assert [found and found.state for found in states] == ["a=1", "a=1,b@c=2", "", "", "", ""]


def test_without_a_tracer_nothing_is_made() -> None:
    with tracing.begin("one", kind="server") as one, tracing.child("two") as two:
        assert one is two is NOTHING
        assert (tracing.on(), tracing.meta(), tracing.current(), current()) == (False, {}, NOTHING, {})


def test_a_child_is_of_the_current_span_and_there_is_none_without_one(tracer: Tracer) -> None:
    assert tracing.child("alone") is NOTHING
    with tracing.begin("above") as above:
        with tracing.child("below"):
            assert tracing.meta() == {"_meta": {"traceparent": f"00-{TRACE}-{'2'.rjust(16, '0')}-01"}}
        assert current() == {"trace_id": TRACE, "span_id": "1".rjust(16, "0")}
    assert tracer.spans[1].parent == above.context
    assert current() == {}


@pytest.mark.anyio
async def test_what_outlives_a_span_belongs_to_it_no_more(tracer: Tracer) -> None:
    over, found = anyio.Event(), []

    async def lives_on() -> None:
        await over.wait()
        found.append((tracing.child("late"), current()))

    async with anyio.create_task_group() as tasks:
        with tracing.begin("action"):
            tasks.start_soon(lives_on)
        over.set()
    assert found == [(NOTHING, {})]
    assert [span.name for span in tracer.spans] == ["action"]


def test_an_error_is_named_by_its_code_and_never_by_its_words(tracer: Tracer) -> None:
    with pytest.raises(NotFound), tracing.begin("one"):
        raise NotFound("task", "a secret")
    with pytest.raises(ValueError, match="secret"), tracing.begin("two"):
        raise ValueError("a secret")
    with tracing.begin("three") as three:
        three.fail("BUSY")
    assert [span.error for span in tracer.spans] == ["NOT_FOUND", "ValueError", "BUSY"]


def test_a_tracer_that_raises_is_not_asked_again(tracer: Tracer) -> None:
    tracer.fails = True
    with tracing.begin("one"):
        pass
    assert not tracing.on()
    assert tracing.begin("two") is NOTHING


def test_what_is_remembered_of_origins_is_bounded(tracer: Tracer) -> None:
    with tracing.begin("action") as action:
        for number in range(tracing.ORIGINS + 1):
            tracing.remember(str(number))
    assert (tracing.origins("0"), tracing.origins("1")) == ((), (action.context,))
