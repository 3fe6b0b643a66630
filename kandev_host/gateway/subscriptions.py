"""What one socket follows: live topics on the bus, and replays of stored events that end in them.

No gap and no duplicate: a replay pages through the store up to the head that the journal has published, and goes live
in the same step in which it finds nothing missing. What another live topic of the socket has delivered is skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import msgspec

from kandev_host.errors import Conflict
from kandev_host.events import Event, Sink
from kandev_host.protocol.actions.tasks import Subscribed, Unsubscribed

if TYPE_CHECKING:
    from kandev_host.interfaces import Bus, JournalState, Store

PAGE = 200
PAGE_BYTES = 4 << 20
GAP_LIMIT = 1000
TOPICS_LIMIT = 1000
ENVELOPE_BYTES = 512


class Followed(msgspec.Struct, frozen=True):
    """A response, and what is to happen on the socket once it is on its way."""

    payload: Any
    then: Callable[[], Awaitable[None]]


class Trimmed(Exception):
    """A replay was overtaken by the removal of old events. Its socket must not go on as if nothing were missing."""


class JournalView(Protocol):
    """What the gateway needs of the journal."""

    @property
    def published_seq(self) -> int: ...

    @property
    def state(self) -> JournalState: ...


class Delivery(Protocol):
    """The socket, as subscriptions see it."""

    def deliver(self, event: Event, resume_seq: int | None) -> None:
        """Send an event, or cut the socket when it has no room. Never waits."""
        ...

    def resume_from(self, seq: int) -> None:
        """A client that gets no more than what was sent so far has to resume from here."""
        ...

    async def room(self, size: int) -> None:
        """Wait until a replay may send `size` bytes more."""
        ...


class Audiences(Protocol):
    """Whoever wants to know which sockets follow a topic, so as to wait for their room."""

    def join(self, topic: str, listener: Delivery) -> None: ...

    def leave(self, topic: str, listener: Delivery) -> None: ...


class Subscriptions:
    """The topics of one socket. `live` maps each to the seq after which its events were delivered.

    `on_live` hears of an event just before it is delivered, unless it is replayed.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        journal: JournalView,
        socket: Delivery,
        audiences: Audiences,
        *,
        on_live: Sink | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._journal = journal
        self._socket = socket
        self._audiences = audiences
        self._on_live = on_live
        self._subscription = bus.subscribe((), self._on_event)
        self._turn = anyio.Lock()
        self._live: dict[str, int] = {}
        self._replaying: set[str] = set()
        self._position: int | None = None
        self._closed = False

    @property
    def topics(self) -> list[str]:
        return sorted({*self._live, *self._replaying})

    def close(self) -> None:
        """Nothing more is delivered; requests that are still at work may follow topics in vain."""
        self._closed = True
        self._subscription.close()
        for topic in self._live:
            self._audiences.leave(topic, self._socket)
        self._live.clear()
        self._replaying.clear()

    def follow(self, topic: str) -> None:
        """Live from now on; nothing if it is followed already."""
        if topic not in self._live and topic not in self._replaying:
            self._go_live((topic,), self._journal.published_seq)

    def unfollow(self, topic: str) -> None:
        """Undo `follow`."""
        self._drop(topic)

    async def subscribe(
        self, topics: Sequence[str], after_seq: int | None = None, journal_id: str | None = None
    ) -> Followed:
        """Follow `topics`, with `after_seq` from there on: the events after it come next, then live ones.

        A topic that is live already starts over at `after_seq`. Raises `Conflict` with `resync_required` when
        `journal_id` is another journal's, or `after_seq` is not kept any more or beyond the head.
        """
        if len({*self._live, *self._replaying, *topics}) > TOPICS_LIMIT:
            raise Conflict(f"One socket follows at most {TOPICS_LIMIT} topics; follow * instead")
        # Replays of one socket come one after the other: their order, and what they may skip, depends on it.
        await self._turn.acquire()
        try:
            state = self._journal.state
            head = self._journal.published_seq
            _check(state, head, after_seq, journal_id)
            reply = Subscribed(journal_id=state.journal_id, seq=head, topics=list(topics))
            if after_seq is None:
                for topic in topics:
                    self.follow(topic)
                self._turn.release()
                return Followed(reply, _nothing)
            for topic in topics:
                self._drop(topic)
            self._replaying.update(topics)
        except BaseException:
            self._turn.release()
            raise
        return Followed(reply, lambda: self._replay(after_seq))

    async def unsubscribe(self, topics: Iterable[str] | None = None) -> Unsubscribed:
        """Follow these (all, when None) no more; a replay of them ends here."""
        dropped = self.topics if topics is None else list(topics)
        for topic in dropped:
            self._replaying.discard(topic)
        async with self._turn:
            for topic in dropped:
                self._drop(topic)
        return Unsubscribed(topics=self.topics)

    async def _replay(self, after_seq: int) -> None:
        try:
            self._position = after_seq
            self._socket.resume_from(after_seq)
            while self._replaying and not await self._caught_up():
                pass
            self._go_live(tuple(self._replaying), after_seq)
        finally:
            self._position = None
            self._replaying.clear()
            # anyio's lock belongs to a task: this is the one that served the request, from its beginning on.
            self._turn.release()

    async def _caught_up(self) -> bool:
        """Send one page. True when nothing is missing at this very moment."""
        await self._socket.room(0)
        topics = tuple(self._replaying)
        missed: deque[Event] = deque(maxlen=GAP_LIMIT)
        head = self._journal.published_seq
        gap = self._bus.subscribe(topics, missed.append)
        try:
            page = await self._store.events(self._position or 0, topics=topics, limit=PAGE, limit_bytes=PAGE_BYTES)
            # Moved before events are removed: so this page was whole when it was read.
            if (self._position or 0) + 1 < self._journal.state.oldest:
                raise Trimmed("The events that were being replayed are not kept any more")
            complete = len(page) < PAGE and sum(len(bytes(event.payload)) for event in page) < PAGE_BYTES
            for event in page:
                if event.seq is None or event.seq > head:
                    break
                await self._socket.room(len(bytes(event.payload)) + ENVELOPE_BYTES)
                self._send_old(event)
            if not complete:
                return False
            # From here on no await: what was published meanwhile is in `missed`, what comes later is live.
            self._position = max(self._position or 0, head)
            if len(missed) == GAP_LIMIT or not self._replaying:
                return False
            for event in missed:
                self._send_old(event)
            return True
        finally:
            gap.close()

    def _send_old(self, event: Event) -> None:
        seq = event.seq
        if seq is None:
            self._send_transient(event)
            return
        self._position = seq
        live = self._live
        wanted = False
        for topic in event.topics():
            if topic in self._replaying:
                wanted = True
            elif live.get(topic, seq) < seq:
                return
        if wanted:
            self._socket.deliver(event, seq)

    def _send_transient(self, event: Event) -> None:
        if not any(topic in self._live for topic in event.topics()):
            self._socket.deliver(event, None)

    def _on_event(self, event: Event) -> None:
        # While a replay is under way a client that comes back must resume from there, not from live events.
        position, seq = self._position, event.seq
        if self._on_live is not None:
            self._on_live(event)
        self._socket.deliver(event, seq if position is None or seq is None else min(position, seq))

    def _go_live(self, topics: Iterable[str], since: int) -> None:
        if self._closed:
            return
        for topic in topics:
            self._live[topic] = since
            self._subscription.add(topic)
            self._audiences.join(topic, self._socket)

    def _drop(self, topic: str) -> None:
        if self._live.pop(topic, None) is not None:
            self._subscription.discard(topic)
            self._audiences.leave(topic, self._socket)


def _check(state: JournalState, head: int, after_seq: int | None, journal_id: str | None) -> None:
    if journal_id is not None and journal_id != state.journal_id:
        why = "The journal is another one; read everything anew"
    elif after_seq is not None and after_seq > head:
        why = f"after_seq is beyond the head, {head}; read everything anew"
    elif after_seq is not None and after_seq + 1 < state.oldest:
        why = f"Events before {state.oldest} are not kept any more; read everything anew"
    else:
        return
    raise Conflict(why, resync_required=True, journal_id=state.journal_id, head=head, oldest=state.oldest)


async def _nothing() -> None:
    return None
