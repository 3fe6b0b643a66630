"""Commit, then publish: the one writer of durable rows and events.

Everybody's changes wait in one queue; one task takes all that wait there, in order, as a group to `Store.commit`
(one transaction, one sync of the disk), gives the events to the bus in `seq` order, and only then answers. Before that
it takes out what is secret (`redaction`): nothing is written or published that was not looked through.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import anyio
import anyio.abc

from kandev_host.errors import Busy, KandevError, Unavailable
from kandev_host.events import Event
from kandev_host.interfaces import Change, Commit, Expect, JournalState
from kandev_host.journal_entries import Attachment, Auditor, Entry
from kandev_host.redaction import clean_commits, clean_event
from kandev_host.retention import Retention, Trimmer

if TYPE_CHECKING:
    from kandev_host.interfaces import Bus, Store
    from kandev_host.models import Row

logger = logging.getLogger(__name__)

GROUP_COMMITS = 512
GROUP_BYTES = 2 << 20
BOARDS_COUNTED = 4096

Outcome = Sequence[int] | KandevError | Exception


class Journal:
    """Use as an async context manager: leaving it refuses new changes and writes down those that wait.

    At most `limit_commits` commits or `limit_bytes` wait (what exceeds it alone waits alone); whoever brings more
    waits for room, `full_timeout_s` at most. With `retention` old events are removed in the background; `audit` adds to
    what is recorded, not to what is posted, the rows that it is worth. Must live in one event loop.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        *,
        retention: Retention | None = None,
        limit_commits: int = 4096,
        limit_bytes: int = 16 << 20,
        full_timeout_s: float = 30.0,
        drain_timeout_s: float = 30.0,
        audit: Auditor | None = None,
    ) -> None:
        self.published_seq = 0
        self.failed_posts = 0
        self._store = store
        self._bus = bus
        self._audit = audit
        self._limit_commits = limit_commits
        self._limit_bytes = limit_bytes
        self._full_timeout_s = full_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._journal_id = ""
        self._oldest = 1
        self._queue: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._open = False
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._scope = anyio.CancelScope(shield=True)
        self._trimmer = None if retention is None else Trimmer(store, retention, self._forget)
        self._trimming = anyio.CancelScope()
        self._attachments: dict[asyncio.Task[Any], Attachment] = {}
        self._post_errors: WeakKeyDictionary[asyncio.Task[Any], Exception] = WeakKeyDictionary()
        self._changes: dict[str, int] = {}
        self._changes_total = 0

    async def __aenter__(self) -> Journal:
        state = await self._store.journal_state()
        self._journal_id, self.published_seq, self._oldest = state.journal_id, state.head, state.oldest
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._open = True
        self._group.start_soon(self._write, name="journal")
        if self._trimmer is not None:
            self._group.start_soon(self._trim, self._trimmer, name="retention")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._trimming.cancel()
        self._wake.set()
        self._call_waiting()
        with anyio.move_on_after(self._drain_timeout_s, shield=True) as grace:
            await self._drained.wait()
        if grace.cancelled_caught:
            logger.error(
                "The store did not finish within %s s; %s commits are lost", self._drain_timeout_s, self.waiting
            )
            self._scope.cancel()
        # The body's own error goes on as it is, not inside an exception group.
        await self._group.__aexit__(None, None, None)

    @property
    def state(self) -> JournalState:
        """Where the journal stands: `head` is what the bus was given last."""
        return JournalState(self._journal_id, self.published_seq, self._oldest)

    def changes_of(self, board_id: str) -> int:
        """A number that grows whenever a commit that tells of this board is taken, and again when it is written.

        What was read when it was the same stands. Events of agents do not count, since they change no board.
        """
        return self._changes.get(board_id, self._changes_total)

    @property
    def waiting(self) -> int:
        """How many commits wait to be written."""
        return len(self._queue)

    @property
    def waiting_bytes(self) -> int:
        """About how much they hold."""
        return self._waiting_bytes

    async def record(self, *changes: Change, expect: Sequence[Expect] = (), reply: Any = None) -> tuple[int, ...]:
        """Write these changes, all or none; returns the `seq` of its events after they are on the disk and the bus.

        `reply` is what the caller answers once they are: a receipt that is attached keeps it, in the same transaction.
        Raises the error of a failed precondition, what the store says of the changes (`Conflict`, `NotFound`,
        `ValidationFailed`, `StorageFull`, `Busy`), or `Unavailable` once the journal is closing. When cancelled after
        the changes were taken, they are written all the same.
        """
        waiter: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        await self._enqueue(Entry(Commit(changes, expect), waiter, None), reply, self._audit)
        return await waiter

    async def post(self, *changes: Change) -> None:
        """Put these changes in the queue, and return; waits only while the queue is full, which slows the caller.

        When they cannot be written, that is logged and counted, and the next `post` of the same task raises it,
        having taken nothing. Otherwise raises as `record` does for a full or closed queue.
        """
        poster = asyncio.current_task()
        if poster is not None and (error := self._post_errors.pop(poster, None)) is not None:
            raise error
        await self._enqueue(Entry(Commit(changes), None, poster))

    @contextmanager
    def attaching(self, row: Row | None, with_reply: Callable[[Any], Row] | None = None) -> Iterator[Attachment]:
        """Within this, `row` is written together with the first commit of the current task that does not fail.

        Only what this very task commits: tasks that it starts do other work, and may outlive it. `with_reply` makes
        the row of the reply that the commit names (see `record`).
        """
        task = asyncio.current_task()
        if task is None or task in self._attachments:
            raise RuntimeError("A row is attached to one task, once at a time")
        attachment = self._attachments[task] = Attachment(row, with_reply)
        try:
            yield attachment
        finally:
            del self._attachments[task]

    def publish_transient(self, event: Event) -> None:
        """Give the bus an event that is not kept and has no `seq`."""
        clean_event(event)
        self._publish([event])

    async def _enqueue(self, entry: Entry, reply: Any = None, audit: Auditor | None = None) -> None:
        if any(isinstance(change, Event) and change.seq is not None for change in entry.commit.changes):
            raise ValueError("This event has been recorded before")
        if self._room or not self._fits(entry):
            await self._wait_for_room(entry)
        if not self._open:
            raise Unavailable("The host is shutting down")
        if self._attachments:
            attachment = self._attachments.get(asyncio.current_task())  # type: ignore[arg-type]
            if attachment is not None and not attachment.taken:
                entry.attach(attachment, reply)
        entry.take_late()
        if audit is not None:
            entry.audit(audit)
        self._count(entry)
        self._queue.append(entry)
        self._waiting_bytes += entry.size_bytes
        self._wake.set()

    def _count(self, entry: Entry) -> None:
        for change in entry.commit.changes:
            if isinstance(change, Event) and change.agent_id is None and change.board_id is not None:
                self._changes[change.board_id] = self._changes.pop(change.board_id, self._changes_total) + 1
                self._changes_total += 1
                if len(self._changes) > BOARDS_COUNTED:  # the one longest quiet counts on from the total, which is more
                    del self._changes[next(iter(self._changes))]

    def _fits(self, entry: Entry) -> bool:
        room = len(self._queue) < self._limit_commits and self._waiting_bytes + entry.size_bytes <= self._limit_bytes
        return room or not self._queue or not self._open

    async def _wait_for_room(self, entry: Entry) -> None:
        """Wait in line until the entry fits."""
        with anyio.move_on_after(self._full_timeout_s):
            while True:
                place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._room.append(place)
                try:
                    await place
                except asyncio.CancelledError:
                    self._call_waiting()  # the room that this one was called for is another's now
                    raise
                finally:
                    self._room.remove(place)
                if self._fits(entry):
                    return
        raise Busy(f"The journal stayed full for {self._full_timeout_s:g} s; nothing was written")

    async def _trim(self, trimmer: Trimmer) -> None:
        with self._trimming:
            await trimmer.run()

    def _forget(self, through_seq: int) -> None:
        self._oldest = max(self._oldest, through_seq + 1)

    async def _write(self) -> None:
        """Take groups until the journal closes and nothing waits."""
        try:
            with self._scope:
                while self._open or self._queue:
                    if self._queue:
                        await self._write_group(self._take())
                    else:
                        self._wake.clear()
                        await self._wake.wait()
        finally:
            while self._queue:
                self._answer(self._queue.popleft(), Unavailable("The host shut down before this was written"))
            asyncio.get_running_loop().call_soon(self._drained.set)  # after the last group was settled

    def _take(self) -> list[Entry]:
        """All that waits, within the bounds of a group."""
        count = size_bytes = 0
        for entry in self._queue:
            size_bytes += entry.size_bytes
            if count == GROUP_COMMITS or (count and size_bytes > GROUP_BYTES):
                break
            count += 1
        return self._pop(count)

    def _pop(self, count: int) -> list[Entry]:
        popped = [self._queue.popleft() for _ in range(count)]
        self._waiting_bytes -= sum(entry.size_bytes for entry in popped)
        self._call_waiting()
        return popped

    async def _write_group(self, group: list[Entry]) -> None:
        outcomes: Sequence[Outcome]
        left = len(self._queue)
        try:
            commits = clean_commits([entry.commit for entry in group])
            for entry, commit in zip(group, commits, strict=True):
                entry.commit = commit
            outcomes = await self._store.commit(commits)
            if len(outcomes) != len(group):
                raise RuntimeError(f"The store answered {len(outcomes)} of {len(group)} commits")
        except asyncio.CancelledError:
            for entry in group:
                self._answer(entry, Unavailable("The host shut down before this was known to be written"))
            raise
        except Exception as error:
            if not isinstance(error, KandevError):
                logger.exception("The store, or what looks for secrets, failed in a way it should not")
            if isinstance(error, Busy):  # what did not fit into the group has waited as long for the lock as the group
                group += self._pop(left)
            outcomes = [error] * len(group)
        # At once, but after the next group was handed to the store: it writes while we publish.
        asyncio.get_running_loop().call_soon(self._settle, group, outcomes)

    def _call_waiting(self) -> None:
        for place in self._room:
            if not place.done():
                place.set_result(None)

    def _settle(self, group: list[Entry], outcomes: Sequence[Outcome]) -> None:
        """Publish what was written, then answer everybody."""
        written: list[Event] = []
        for entry, outcome in zip(group, outcomes, strict=True):
            self._count(entry)
            if not isinstance(outcome, Exception):
                events = [change for change in entry.commit.changes if isinstance(change, Event)]
                for event, seq in zip(events, outcome, strict=True):
                    event.seq = seq
                written += events
        if written:
            self._publish(written)
            self.published_seq = written[-1].seq or self.published_seq
        for entry, outcome in zip(group, outcomes, strict=True):
            self._answer(entry, outcome)

    def _publish(self, events: list[Event]) -> None:
        try:
            self._bus.publish(events)
        except Exception:
            # The rows are on the disk: a broken relay must not make their writer believe otherwise.
            logger.exception("The bus failed; subscribers read on from the journal")

    def _answer(self, entry: Entry, outcome: Outcome) -> None:
        waiter = entry.waiter
        if entry.attachment is not None and isinstance(outcome, Exception):
            entry.attachment.taken = False
        if entry.acting is not None and not isinstance(outcome, Exception):
            entry.acting.owed = None
        if waiter is not None:
            if waiter.done():  # its task was cancelled meanwhile
                return
            if isinstance(outcome, Exception):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(tuple(outcome))
        elif isinstance(outcome, Exception):
            self.failed_posts += 1
            logger.error("A post of %s changes was not written: %s", len(entry.commit.changes), outcome)
            if entry.poster is not None:
                self._post_errors[entry.poster] = outcome
