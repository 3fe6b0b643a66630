"""What is going on, as spans of traces (W3C Trace Context), where a telemetry of the host takes them.

A process has one tracer, as it has one log. Without it no span is made: `begin` and `child` answer `NOTHING`, which
does nothing, and `on` says so to those who would have to make something ready for it. A span is the current one of the
task that entered it and of those that this one starts, until it ends: what outlives it belongs to it no more, unless it
was begun in time as a span of its own.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Protocol

import msgspec

from kandev_host.errors import KandevError

log = logging.getLogger(__name__)

Kind = Literal["internal", "server", "client", "consumer"]
Value = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Value]

STATE_CHARS = 512
ORIGINS = 1024
_NONE: Attributes = MappingProxyType({})
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
STATE_MEMBERS = 32
# One member of it, as W3C has it: a library that finds another one says so in the log, in the words of whoever sent it.
_MEMBER = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class SpanContext(msgspec.Struct, frozen=True):
    """Where a span is: 32 and 16 hexadecimal digits, and what W3C Trace Context hands on with them.

    `remote` is one that somebody else named.
    """

    trace_id: str
    span_id: str
    sampled: bool = True
    state: str = ""
    remote: bool = False

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def read_context(traceparent: str, tracestate: str = "") -> SpanContext | None:
    """What somebody else's headers say; None for what is no traceparent, which is to be ignored."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    return SpanContext(found[2], found[3], bool(int(found[4], 16) & 1), _read_state(tracestate), remote=True)


def _read_state(tracestate: str) -> str:
    """As it is to be handed on; nothing for what is no tracestate, or is longer than anybody needs."""
    members = [member.strip(" \t") for member in tracestate.split(",")] if len(tracestate) <= STATE_CHARS else []
    members = [member for member in members if member]
    names = {member.partition("=")[0] for member in members}
    if len(names) < len(members) or len(members) > STATE_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return ",".join(members)


class Recording(Protocol):
    """A span, as a tracer keeps it. Must neither block nor raise."""

    @property
    def context(self) -> SpanContext: ...

    def set(self, attributes: Attributes) -> None: ...

    def end(self, error: str | None) -> None:
        """`error` is a wire code or a word of that kind, never a message; None for what went well."""
        ...


class Tracer(Protocol):
    """Makes spans. Must neither block nor raise. No attribute holds a prompt, a payload or a secret."""

    def start(
        self, name: str, kind: Kind, attributes: Attributes, parent: SpanContext | None, links: Sequence[SpanContext]
    ) -> Recording: ...


class Span:
    """Nothing that anybody records: what there is without a tracer. `context` is None for that."""

    __slots__ = ()

    @property
    def context(self) -> SpanContext | None:
        return None

    def set(self, attributes: Attributes) -> None:
        """More that is known of it by now."""

    def fail(self, error: str | None) -> None:
        """It ends with this error, unless it is told another; None: with none."""

    def end(self, error: str | None = None) -> None:
        """Once; what comes later is too late."""

    def here(self) -> Span:
        """The same as a context manager that makes it the current one, and does not end it."""
        return self

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


NOTHING = Span()


class LiveSpan(Span):
    """One that is recorded. As a context manager it is current within, and ends with it."""

    __slots__ = ("_context", "_error", "_recording", "_token", "ended")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._context = recording.context
        self._error: str | None = None
        self._token: Token[LiveSpan | None] | None = None
        self.ended = False

    @property
    def context(self) -> SpanContext | None:
        return self._context

    def set(self, attributes: Attributes) -> None:
        if not self.ended:
            try:
                self._recording.set(attributes)
            except Exception:
                _give_up()

    def fail(self, error: str | None) -> None:
        self._error = error

    def end(self, error: str | None = None) -> None:
        if self.ended:
            return
        self.ended = True
        try:
            self._recording.end(error or self._error)
        except Exception:
            _give_up()

    def here(self) -> Span:
        return _Here(self)

    def __enter__(self) -> Span:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
        self.end(None if error is None else error_type(error))


class _Here(Span):
    """Makes a span current that goes on afterwards."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: LiveSpan) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = _current.set(self._span)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)


_current: ContextVar[LiveSpan | None] = ContextVar("kandev_span", default=None)
_origins: OrderedDict[str, SpanContext] = OrderedDict()
_tracer: Tracer | None = None


@contextmanager
def using(tracer: Tracer | None) -> Iterator[None]:
    """Within this spans go to this tracer, if there is one."""
    global _tracer  # noqa: PLW0603
    before = _tracer
    _tracer = tracer or before
    try:
        yield
    finally:
        _tracer = before
        if before is None:
            _origins.clear()


def on() -> bool:
    """Does anybody take spans?"""
    return _tracer is not None


def current() -> Span:
    """The span of what is done here and now, unless it is over."""
    span = _current.get()
    return NOTHING if span is None or span.ended else span


def begin(
    name: str,
    attributes: Attributes = _NONE,
    *,
    kind: Kind = "internal",
    parent: SpanContext | None = None,
    links: Sequence[SpanContext] = (),
) -> Span:
    """A span that somebody ends: of this parent, else of the current span, else of a trace of its own."""
    if _tracer is None:
        return NOTHING
    try:
        recording = _tracer.start(name, kind, attributes, parent or current().context, links)
        return LiveSpan(recording)
    except Exception:
        _give_up()
        return NOTHING


def child(name: str, attributes: Attributes = _NONE, *, kind: Kind = "internal") -> Span:
    """A span of the current one; nothing where there is none, for that would be a trace of next to nothing."""
    span = _current.get()
    return NOTHING if span is None or span.ended else begin(name, attributes, kind=kind)


def error_type(error: BaseException) -> str:
    """What an error is called in a span: its wire code, or its class."""
    if isinstance(error, KandevError):
        return error.code
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else type(error).__name__


def meta() -> dict[str, Any]:
    """The `_meta` of an ACP request that belongs to the current span; nothing without one."""
    context = current().context
    if context is None:
        return {}
    state = {"tracestate": context.state} if context.state else {}
    return {"_meta": {"traceparent": context.traceparent, **state}}


def remember(key: str) -> None:
    """What is done for `key` later goes back to the current span."""
    context = current().context
    if context is not None:
        _origins[key] = context
        _origins.move_to_end(key)
        if len(_origins) > ORIGINS:
            _origins.popitem(last=False)


def origins(key: str) -> tuple[SpanContext, ...]:
    """The links of what is done for `key` now: none, if that is not known (any more)."""
    found = _origins.get(key)
    return () if found is None else (found,)


def _give_up() -> None:
    """The contract says that a tracer does not raise; a plugin may break it."""
    global _tracer  # noqa: PLW0603
    _tracer = None
    log.exception("the tracer failed: there are no more spans")
