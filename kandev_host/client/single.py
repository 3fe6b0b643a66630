"""A client of one connection."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from types import TracebackType

import anyio
import msgspec

from kandev_host.client.connection import BUFFER, Connection, Notification, Settled
from kandev_host.client.errors import ClientError
from kandev_host.client.following import Subscribed
from kandev_host.client.requests import DEADLINE_S, Requests, decoded
from kandev_host.models import new_id


class Client(Requests):
    """One connection. Use as an async context manager; several tasks may call at once.

    At most `buffer` notifications wait to be read: then reading stops until there is room, and the host in the end cuts
    the connection (close code 4408). While a call waits for its answer it goes on, up to 16 times as many.
    """

    def __init__(self, url: str, token: str | None, *, timeout_s: float = 10.0, buffer: int = BUFFER) -> None:
        self._connection = Connection(url, token, timeout_s, buffer)
        self._ids = itertools.count(1)
        self.journal_id: str | None = None
        self.resume_seq: int | None = None

    @classmethod
    def connect(cls, url: str, token: str | None, *, timeout_s: float = 10.0, buffer: int = BUFFER) -> Client:
        """A client for `async with`; entering it connects. `url` is the host's, http or ws; without a token,
        the first call must be `auth.login`."""
        return cls(url, token, timeout_s=timeout_s, buffer=buffer)

    async def __aenter__(self) -> Client:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    @property
    def closed(self) -> ClientError | None:
        """Why the connection ended; None while it is open."""
        return self._connection.error

    async def _ask(self, action: str, payload: object, timeout_s: float, request_id: str | None) -> msgspec.Raw:
        id = request_id or (f"{next(self._ids)}" if action.startswith("auth.") else new_id())
        try:
            with anyio.fail_after(timeout_s):
                return await self._connection.ask(id, action, payload)
        except TimeoutError:
            raise ClientError("TIMEOUT", f"No answer to {action} within {timeout_s:g} s") from None

    async def subscribe(
        self, *topics: str, after_seq: int | None = None, journal_id: str | None = None, timeout_s: float = DEADLINE_S
    ) -> int:
        """Follow `topics` (`task:<id>`, `board:<id>`, `agent:<id>`, `*`); returns the journal's head.

        With `after_seq`, what was stored after it comes first. Raises `ClientError` CONFLICT with
        `details["resync_required"]` when that is not possible any more.
        """
        payload = {"topics": topics or ("*",), "after_seq": after_seq, "journal_id": journal_id}
        reply = decoded(await self._ask("events.subscribe", payload, timeout_s, None), Subscribed)
        self.journal_id = reply.journal_id
        self.resume_seq = reply.seq if after_seq is None else after_seq
        return reply.seq

    async def notifications(self) -> AsyncIterator[Notification]:
        """The events as they come; raises `ClientError` when the connection has ended, and why.

        Each moves `resume_seq`. With several subscriptions that have an `after_seq`, live events may come before
        replayed ones: to resume such a client as well, use `ReconnectingClient`.
        """
        while True:
            taken = await self._connection.take()
            if isinstance(taken, Notification):
                if taken.seq is not None:
                    self.resume_seq = taken.seq
                yield taken

    async def leading(self, action: str) -> AsyncIterator[Notification]:
        """The next ones of this name; it ends before the first of another, which is left for `notifications`.

        Raises as that does.
        """
        while isinstance(found := await self._connection.first(), Notification) and found.action == action:
            await self._connection.take()
            yield found

    async def history(
        self, *topics: str, after_seq: int = 0, journal_id: str | None = None
    ) -> AsyncIterator[Notification]:
        """What is stored of `topics` after `after_seq`, up to now. For a client that follows nothing else.

        Raises as `subscribe` and `notifications` do.
        """
        await self.subscribe(*topics, after_seq=after_seq, journal_id=journal_id)
        await self._connection.fence(new_id())
        while not isinstance(taken := await self._connection.take(), Settled):
            if taken.seq is not None:
                self.resume_seq = taken.seq
                yield taken
        await self._ask("events.unsubscribe", {"topics": topics or ("*",)}, DEADLINE_S, None)
