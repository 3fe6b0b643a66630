"""Which request, task and session a line of the log belongs to, and which span if there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType

from kandev_host import tracing
from kandev_host.printable import printable

ID_LIMIT = 64  # a client chooses the ids of its requests

Id = str | Callable[[], str | None]
_IDS: ContextVar[Mapping[str, Id]] = ContextVar("kandev_log_ids", default=MappingProxyType({}))


class bound:  # noqa: N801 - reads as a verb: with bound(task_id=...)
    """Until the block ends, lines of this task and of those that it starts have these ids, beside those around it.

    With `alone`, only these: what lives on belongs no more to the request that began it. An id that is not known yet
    is a function, asked for each line.
    """

    __slots__ = ("_ids", "_token")

    def __init__(self, *, alone: bool = False, **ids: Id) -> None:
        self._ids = ids if alone else {**_IDS.get(), **ids}
        self._token: Token[Mapping[str, Id]] | None = None

    def __enter__(self) -> None:
        self._token = _IDS.set(self._ids)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _IDS.reset(self._token)


def current() -> dict[str, str]:
    """The ids of here and now, as they are shown."""
    known = ((name, value if isinstance(value, str) else value()) for name, value in _IDS.get().items())
    shown = {name: printable(value[:ID_LIMIT]) for name, value in known if value}
    span = tracing.current().context
    return shown if span is None else {**shown, "trace_id": span.trace_id, "span_id": span.span_id}
