"""Durable rows and events, and their delivery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from kandev_host.errors import KandevError
from kandev_host.events import Event, Sink
from kandev_host.models import AuditRow, Row

R = TypeVar("R", bound=Row)


Op = Literal["=", "in", "<", "<=", ">", ">=", "match"]


class Put(msgspec.Struct, frozen=True):
    """Insert this row, or replace the one with its id."""

    row: Row


class Late(Put, frozen=True):
    """A row that the journal has `made` as the commit takes its place in the queue: it is of that very moment."""

    made: Callable[[], Row]


@dataclass(frozen=True, slots=True)
class Append:
    """Add this row to the audit, behind the last one: `models.chained(row, key, seq=…, mac=…)` of that one.

    In the order of commits and changes, without gaps, also over commits that fail alone. No other change, and nothing
    else that the store does, ever changes or removes a row of the audit: `ValidationFailed`.
    """

    row: AuditRow
    key: bytes = field(repr=False)


class Remove(msgspec.Struct, frozen=True):
    """Delete the row of this kind and id; rows that belong to it go with it (foreign keys cascade)."""

    kind: type[Row]
    id: str


class Shift(msgspec.Struct, frozen=True):
    """Add `by` to the integer `field` of every row that meets the conditions (as in `Store.find`), however many."""

    kind: type[Row]
    field: str
    by: int
    where: Sequence[tuple[str, Op, Any]]


class Expect(msgspec.Struct, frozen=True):
    """A precondition: the row exists and its `field` has one of `values`; with no field, only that it exists.

    A commit whose precondition fails writes nothing and answers `error`.
    """

    kind: type[Row]
    id: str
    error: KandevError
    field: str | None = None
    values: tuple[Any, ...] = ()


Change = Put | Append | Remove | Shift | Event


class Commit(msgspec.Struct, frozen=True):
    """Changes that become durable together or not at all. Events get their `seq` in the order given."""

    changes: Sequence[Change]
    preconditions: Sequence[Expect] = ()


class Page(msgspec.Struct, Generic[R], frozen=True):
    """Rows and, where more follow, the opaque cursor to ask on with."""

    rows: list[R]
    next_cursor: str | None = None


class JournalState(msgspec.Struct, frozen=True):
    """`journal_id` changes when history was replaced (a restore); `oldest` is the first `seq` still kept."""

    journal_id: str
    head: int
    oldest: int


class Trimmed(msgspec.Struct, frozen=True):
    """How many events and receipts one `trim` removed, and whether there is `more` for it to do."""

    events: int
    receipts: int
    more: bool


class Hit(msgspec.Struct, frozen=True):
    """One search result; `snippet` marks the matches with [ and ]."""

    kind: str
    id: str
    task_id: str | None
    snippet: str
    score: float


UsageGroup = Literal["day", "agent_type", "model", "task"]


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """What the turns of one group used; of each turn one row counts, the gateway's before the agent's.

    `key` is the group's: a day in UTC (2026-01-31), an agent type, a model, a task's id; None is unknown. Tokens and
    times are None where no turn told them. `cost` is exact decimal text by currency. `unpriced_turns` have no cost,
    `unreported_turns` no tokens.
    """

    key: str | None
    turns: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    cached_read_tokens: int | None = None
    cached_write_tokens: int | None = None
    total_tokens: int | None = None
    cost: Mapping[str, str]
    unpriced_turns: int
    unreported_turns: int
    wall_ms: int | None = None
    waited_ms: int | None = None


class Store(Protocol):
    """Durable rows and events. Acknowledged means committed to disk (reliability: P1).

    Raises `Busy` when another process holds the database beyond 5 s, `StorageFull` when the disk is full.
    """

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Sequence[int] | KandevError]:
        """Write all in one transaction. Each answers the `seq` of its events, or the error that undid it alone.

        Only the journal calls this. `seq` grows in the order of the commits and of the events in them.
        """
        ...

    async def get(self, kind: type[R], id: str) -> R | None:
        """The row with this id."""
        ...

    async def find(
        self,
        kind: type[R],
        where: Sequence[tuple[str, Op, Any]] = (),
        *,
        order: Sequence[str] = ("created_at", "id"),
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[R]:
        """Rows that meet every condition, in `order` (a leading `-` is descending; end it with a unique field).

        `None` with `=` means unknown; `match` (field `text`) is a full-text query and never fails on its syntax.
        Raises `ValidationFailed("cursor", …)` for a cursor that this order did not make.
        """
        ...

    async def count(self, kind: type[Row], where: Sequence[tuple[str, Op, Any]] = ()) -> int:
        """How many rows meet every condition."""
        ...

    async def usage_sums(
        self, where: Sequence[tuple[str, Op, Any]] = (), *, group_by: UsageGroup | None = None, limit: int = 100
    ) -> list[UsageSum]:
        """Sums over the usage that meets every condition, a group each: days newest first, others by most turns.

        Without `group_by` the one sum of all, also of nothing.
        """
        ...

    async def events(
        self,
        after_seq: int,
        *,
        topics: Sequence[str] = ("*",),
        limit: int = 500,
        limit_bytes: int | None = None,
        action_prefix: str = "",
    ) -> list[Event]:
        """Durable events after `after_seq` that belong to one of the topics, by `seq`.

        At most `limit`; they end with the one by which their payloads reach `limit_bytes`.
        """
        ...

    async def journal_state(self) -> JournalState:
        """Where the journal stands, as committed."""
        ...

    async def expired(self, *, before: datetime | None = None, limit_bytes: int | None = None, limit: int = 500) -> int:
        """The last `seq` of those events that need not be kept, at most `limit` of them; 0 when all are kept.

        These are the oldest ones, without a gap: each was made before `before`, or all the events from it on take more
        than `limit_bytes` (of payload, and what the store needs for a row).
        """
        ...

    async def trim(self, through_seq: int, *, receipts_before: datetime | None = None, limit: int = 500) -> Trimmed:
        """Remove events up to `through_seq` and receipts made before `receipts_before`, at most `limit` of each.

        One short transaction. `seq` never goes back, also when no event is left. Only the journal calls this.
        """
        ...

    async def search(
        self, text: str, *, kinds: Sequence[str] = (), task_id: str | None = None, limit: int = 20
    ) -> list[Hit]:
        """Full-text search over tasks, messages, logs and commands; any text is a valid query."""
        ...


class Subscription(Protocol):
    """One subscriber's topics. Closing it, also twice, ends the deliveries at once."""

    def add(self, topic: str) -> None: ...

    def discard(self, topic: str) -> None: ...

    def close(self) -> None: ...


class Bus(Protocol):
    """Delivery after commit. The journal is the truth; the bus is a relay and may lose what it holds in a crash."""

    def subscribe(self, topics: Iterable[str], sink: Sink) -> Subscription:
        """Call `sink` with each event of these topics, in order, once. A sink neither blocks nor raises."""
        ...

    def publish(self, events: Sequence[Event]) -> None:
        """Deliver committed (or transient) events."""
        ...
