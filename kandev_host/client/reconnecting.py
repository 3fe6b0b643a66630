"""A client that comes back: it connects again, follows on where it was, and asks again what was on its way."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from time import monotonic as _clock
from types import TracebackType
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskStatus

from kandev_host.client.backoff import Backoff
from kandev_host.client.connection import BUFFER, NOBODY, Connection, Notification, Settled
from kandev_host.client.errors import ClientError, ConnectionLost
from kandev_host.client.following import TOPICS_PER_REQUEST, Subscribed, batches, followed, gone
from kandev_host.client.position import Position
from kandev_host.client.requests import DEADLINE_S, Requests, decoded
from kandev_host.errors import PASSING
from kandev_host.models import new_id

TOLD_LIMIT = 100
_RESYNC = {"resync_required": True}
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class ReconnectingClient(Requests):
    """As `Client`, over as many connections as it takes. Use as an async context manager; entering it connects once.

    - Each durable event of the topics followed comes once and in order, across connections; transient ones may be
      missed.
    - A call that was on its way when the connection was lost is asked again under the same id, within its deadline:
      the host gives the same answer, or CONFLICT with `outcome_unknown`. Calls of `auth.*`, and those with an id of
      yours that is no UUID, are not: they raise `ConnectionLost`.
    - `url` and `token` may be functions, asked before each connection: for a host that moved or a token that was
      replaced.
    - When no connection was made for `backoff.give_up_s`, or the host refuses the token, everything raises that
      `ClientError`, with `details["gave_up"]`.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        token: str | Callable[[], str | None] | None,
        *,
        timeout_s: float = 10.0,
        buffer: int = BUFFER,
        backoff: Backoff | None = None,
        on_lost: Callable[[ClientError], object] | None = None,
        on_back: Callable[[], object] | None = None,
    ) -> None:
        """`on_lost` is told of each connection that ended and each attempt that failed, `on_back` of the next one."""
        self._url = url
        self._token = token
        self._timeout_s = timeout_s
        self._buffer = buffer
        self._backoff = backoff or Backoff()
        self._on_lost = on_lost
        self._on_back = on_back or (lambda: None)
        self._connection: Connection | None = None
        self._turned = anyio.Event()
        self._position = Position()
        self._topics: set[str] = set()
        self._subscribing = anyio.Lock()
        self._told: deque[ClientError] = deque()
        self._error: ClientError | None = None
        self.journal_id: str | None = None
        self.connections = 0

    async def __aenter__(self) -> ReconnectingClient:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        try:
            await self._group.start(self._keep)
        except BaseException:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_up(ConnectionLost("This client is closed"))
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    @property
    def closed(self) -> ClientError | None:
        """Why it gave up; None as long as it has not."""
        return self._error

    @property
    def resume_seq(self) -> int:
        """All events up to here were delivered: for another client, with `journal_id`, to go on from."""
        return self._position.seq

    async def subscribe(
        self, *topics: str, after_seq: int | None = None, journal_id: str | None = None, timeout_s: float = DEADLINE_S
    ) -> int:
        """Follow `topics` as well, from now on; returns the journal's head.

        `after_seq`, with the `journal_id` it belongs to, is for the first subscription, as a client has one position;
        raises `ValueError` later, and `ClientError` with `resync_required` when that is not possible any more.
        """
        wanted = topics or ("*",)
        if len(wanted) > TOPICS_PER_REQUEST:
            raise ValueError(f"At most {TOPICS_PER_REQUEST} topics at once; follow * instead")
        async with self._subscribing:
            if after_seq is None:
                return await self._follow(wanted, journal_id, timeout_s)
            if self._topics:
                raise ValueError("after_seq is for a client that follows nothing yet: one client has one position")
            return await self._follow_from(after_seq, wanted, journal_id, timeout_s)

    async def unsubscribe(self, *topics: str, timeout_s: float = DEADLINE_S) -> None:
        """Follow these no more; without topics, nothing."""
        dropped = topics or tuple(self._topics)
        self._topics.difference_update(dropped)
        for batch in batches(dropped):
            await self._ask("events.unsubscribe", {"topics": batch}, timeout_s, None)

    async def notifications(self) -> AsyncIterator[Notification]:
        """The events, each once and in order.

        Raises `ClientError`: with `resync_required` when events were missed for good (they are not kept any more, or
        the journal is another one), or NOT_FOUND when a followed task is gone; those are told once, what could not be
        resumed is followed no more, and iterating anew goes on. Any other one is the end of this client.
        """
        while True:
            connection = await self._live()
            if self._told:
                raise self._told.popleft()
            try:
                taken = await connection.take()
            except ConnectionLost:
                continue
            if connection is not self._connection:
                continue  # what a lost connection left behind comes again, in its place
            if isinstance(taken, Settled):
                self._position.settled(taken.fence)
            elif taken.seq is None or self._position.take(taken.seq):
                self._topics.discard(gone(taken))
                yield taken
            if self._position.overfull:
                self._give_up(ClientError("CONFLICT", "Too much came at once; read everything anew", _RESYNC))

    async def _ask(self, action: str, payload: object, timeout_s: float, request_id: str | None) -> msgspec.Raw:
        id = request_id or new_id()
        asked: Connection | None = None
        try:
            with anyio.fail_after(timeout_s):
                while True:
                    connection = await self._live()
                    again, asked = asked is not None, connection
                    try:
                        reply = await connection.ask(id, action, payload)
                        await self._also_follow(connection, followed(action, reply) - self._topics, again=again)
                    except ConnectionLost:
                        if action.startswith("auth.") or not _UUID.fullmatch(id):
                            raise  # the host knows other ids on their own connection only
                        continue
                    return reply
        except TimeoutError:
            raise ClientError("TIMEOUT", f"No answer to {action} within {timeout_s:g} s") from None

    async def _also_follow(self, connection: Connection, topics: set[str], *, again: bool) -> None:
        """What the host follows by itself; when it only repeated its answer, events may have passed before that."""
        if again and topics:
            try:
                await self._replay(connection, topics, self._position.seq, self.journal_id)
            except ConnectionLost:
                raise
            except ClientError as error:  # the call itself has succeeded
                self._tell(error)
                return
        self._topics |= topics

    async def _follow(self, topics: tuple[str, ...], journal_id: str | None, timeout_s: float) -> int:
        payload = _subscribing(topics, None, journal_id)
        reply = decoded(await self._ask("events.subscribe", payload, timeout_s, None), Subscribed)
        if not self._topics:
            self._position.start_now(reply.seq)
        self._topics.update(topics)
        return reply.seq

    async def _follow_from(
        self, after_seq: int, topics: tuple[str, ...], journal_id: str | None, timeout_s: float
    ) -> int:
        try:
            with anyio.fail_after(timeout_s):
                while True:
                    connection = await self._live()
                    before = self._position.seq
                    # Before it is asked for: its events may be taken sooner than its answer.
                    self._position.start(after_seq)
                    try:
                        head = await self._replay(
                            connection, topics, after_seq, journal_id or self.journal_id, everything=True
                        )
                    except ConnectionLost:
                        continue
                    except BaseException:
                        self._position.start(before)
                        raise
                    self._topics.update(topics)
                    return head
        except TimeoutError:
            raise ClientError("TIMEOUT", f"No answer to events.subscribe within {timeout_s:g} s") from None

    async def _replay(
        self,
        connection: Connection,
        topics: Iterable[str],
        after_seq: int,
        journal_id: str | None,
        *,
        everything: bool = False,
    ) -> int:
        """Follow these from there on; the head it was told of. `everything`: nothing else is followed."""
        replay, head = new_id(), 0
        requests = list(batches([NOBODY, *topics]))
        self._position.replaying(replay)
        try:
            for batch in requests:
                payload = _subscribing(batch, after_seq, journal_id)
                head = decoded(await connection.ask(new_id(), "events.subscribe", payload), Subscribed).seq
        except ClientError:
            self._position.settled(replay)
            raise
        if everything and len(requests) == 1:
            self._position.ordered(head)
        await connection.fence(replay)
        return head

    # The connections.

    async def _live(self) -> Connection:
        while True:
            if self._error is not None:
                raise self._error
            if self._connection is not None and self._connection.error is None:
                return self._connection
            await self._turned.wait()

    def _turn(self, connection: Connection | None) -> None:
        self._connection = connection
        self._turned.set()
        self._turned = anyio.Event()

    def _give_up(self, error: ClientError) -> None:
        if self._error is None:
            self._error = error
            self._turn(None)

    async def _keep(self, *, task_status: TaskStatus[None]) -> None:
        """One connection after the other, until none can be had."""
        error = await self._hold(task_status.started)
        waits, give_up_at = self._backoff.waits(), _clock() + self._backoff.give_up_s
        while error.code in PASSING and self._error is None and _clock() < give_up_at:
            if self._on_lost is not None:
                self._on_lost(error)
            await anyio.sleep(min(next(waits), max(give_up_at - _clock(), 0)))
            opened, began = self.connections, _clock()
            try:
                error = await self._hold(self._on_back)
            except ClientError as failure:
                error = failure
            if self.connections > opened:
                give_up_at = _clock() + self._backoff.give_up_s
                if _clock() - began > self._backoff.healthy_s:
                    waits = self._backoff.waits()
        self._give_up(ClientError(error.code, error.message, {**error.details, "gave_up": True}))

    async def _hold(self, on_open: Callable[[], object]) -> ClientError:
        """Connect, follow on, and serve until the connection ends; why it did. Raises when it cannot be had."""
        try:
            url = self._url if isinstance(self._url, str) else self._url()
            token = self._token() if callable(self._token) else self._token
        except OSError as reason:  # a file that is just being replaced
            raise ConnectionLost(f"Address and token cannot be read: {reason}") from None
        async with Connection(url, token, self._timeout_s, self._buffer) as connection:
            try:
                with anyio.fail_after(self._timeout_s):
                    await self._resume(connection)
            except TimeoutError:
                raise ClientError("TIMEOUT", f"{url} did not resume within {self._timeout_s:g} s") from None
            self.connections += 1
            self._turn(connection)
            on_open()
            error = await connection.ended()
            self._turn(None)
            return error

    async def _resume(self, connection: Connection) -> None:
        self._position.connected()
        while self.journal_id is not None:
            topics, seq = sorted(self._topics), self._position.seq
            try:
                await self._replay(connection, topics, seq, self.journal_id, everything=True)
            except ClientError as error:
                if error.code in PASSING:
                    raise
                self._position.connected()
                self._lose(error)
            else:
                return
        payload = _subscribing([NOBODY], None)
        reply = decoded(await connection.ask(new_id(), "events.subscribe", payload), Subscribed)
        self.journal_id = reply.journal_id
        self._position.start(reply.seq)

    def _lose(self, error: ClientError) -> None:
        """Tell why not everything can be followed on: a topic is gone, or all of them have to be read anew."""
        topic = f"task:{error.details.get('id')}"
        if self._topics:
            self._tell(error)
        if error.code == "NOT_FOUND" and topic in self._topics:
            self._topics.discard(topic)
            return
        self._topics.clear()
        self.journal_id = None

    def _tell(self, error: ClientError) -> None:
        """Raise this from `notifications`, once."""
        if len(self._told) < TOLD_LIMIT:
            self._told.append(error)


def _subscribing(topics: Iterable[str], after_seq: int | None, journal_id: str | None = None) -> dict[str, Any]:
    return {"topics": list(topics), "after_seq": after_seq, "journal_id": journal_id}
