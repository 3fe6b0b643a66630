"""A client of the WebSocket protocol, for the command line, for tests and for anybody's scripts.

    async with Client.connect("http://127.0.0.1:8080", token) as client:
        task = await client.call("task.get", {"task_id": task_id})
        await client.subscribe(f"task:{task_id}", after_seq=0)
        async for notification in client.notifications():
            ...

It does not reconnect by itself: `resume_seq` and `journal_id` say where to go on.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Literal

import aiohttp
import anyio
import msgspec
from aiohttp import WSMsgType

from kandev_host.models import new_id

BUFFER = 10_000
HARD_LIMIT_FACTOR = 16
MESSAGE_LIMIT_BYTES = 64 << 20
HEARTBEAT_S = 30.0
_SEQ = re.compile(r"\bseq=(\d+)")
_REFUSALS = {
    401: ("UNAUTHORIZED", "The host refused the token"),
    403: ("FORBIDDEN", "The host refused this origin"),
    421: ("BAD_REQUEST", "The host does not answer to this name; use the address that it printed"),
    503: ("BUSY", "The host has no socket left, or is shutting down"),
}


class ClientError(Exception):
    """What the host answered (`code`, `message`, `details` of the protocol), or why it could not be asked.

    Not the host's: UNAVAILABLE when nobody listens or the connection ended (`details.close_code`), and TIMEOUT.
    """

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = dict(details or {})


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One event. Transient ones have no `seq`."""

    id: str | None
    action: str
    payload: Any
    timestamp: str
    seq: int | None = None


class _Incoming(msgspec.Struct):
    type: Literal["response", "notification", "error"]
    payload: Any
    timestamp: str
    id: str | None = None
    action: str | None = None
    seq: int | None = None


_decode = msgspec.json.Decoder(_Incoming).decode
_encode = msgspec.json.Encoder().encode


class Client:
    """One connection. Use as an async context manager; several tasks may call at once.

    At most `buffer` notifications wait to be read: then reading stops until there is room, and the host in the end cuts
    the connection (close code 4408). While a call waits for its answer it goes on, up to 16 times as many.
    """

    def __init__(self, url: str, token: str | None, *, timeout_s: float = 10.0, buffer: int = BUFFER) -> None:
        self._url = _socket_url(url)
        self._token = token
        self._timeout_s = timeout_s
        self._buffer = buffer
        self._ids = itertools.count(1)
        self._calls: dict[str, asyncio.Future[_Incoming]] = {}
        self._notifications: deque[Notification] = deque()
        self._changed = asyncio.Event()
        self._error: ClientError | None = None
        self.journal_id: str | None = None
        self.resume_seq: int | None = None

    @classmethod
    def connect(cls, url: str, token: str | None, *, timeout_s: float = 10.0, buffer: int = BUFFER) -> Client:
        """A client for `async with`; entering it connects. `url` is the host's, http or ws; without a token,
        the first call must be `auth.login`."""
        return cls(url, token, timeout_s=timeout_s, buffer=buffer)

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession()
        try:
            with anyio.fail_after(self._timeout_s):
                self._socket = await self._open()
        except TimeoutError:
            await self._session.close()
            raise ClientError("TIMEOUT", f"No answer from {self._url} within {self._timeout_s:g} s") from None
        except BaseException:
            await self._session.close()
            raise
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(ClientError("UNAVAILABLE", "This client is closed"))
        self._group.cancel_scope.cancel()
        # The body's own error goes on as it is, not inside an exception group.
        await self._group.__aexit__(None, None, None)
        with anyio.move_on_after(self._timeout_s, shield=True):
            await self._socket.close()
            await self._session.close()

    @property
    def closed(self) -> ClientError | None:
        """Why the connection ended; None while it is open."""
        return self._error

    async def call(
        self, action: str, payload: object = None, timeout_s: float = 60.0, *, request_id: str | None = None
    ) -> Any:
        """The payload of the response. Raises `ClientError` with the host's code, UNAVAILABLE or TIMEOUT.

        After a TIMEOUT the outcome is unknown: ask with the same `request_id` again, or look.
        """
        if self._error is not None:
            raise self._error
        id = request_id or (f"{next(self._ids)}" if action.startswith("auth.") else new_id())
        if id in self._calls:
            raise ClientError("CONFLICT", f"The request {id} is on its way already")
        answer: asyncio.Future[_Incoming] = asyncio.get_running_loop().create_future()
        self._calls[id] = answer
        self._changed.set()
        request = {"id": id, "type": "request", "action": action, "payload": {} if payload is None else payload}
        try:
            with anyio.fail_after(timeout_s):
                await self._socket.send_str(_encode(request).decode())
                message = await answer
        except TimeoutError:
            raise ClientError("TIMEOUT", f"No answer to {action} within {timeout_s:g} s") from None
        except ConnectionError:
            raise self._error or ClientError("UNAVAILABLE", "The connection is lost") from None
        finally:
            del self._calls[id]
        if message.type == "error":
            raise _host_error(message.payload)
        return message.payload

    async def subscribe(
        self, *topics: str, after_seq: int | None = None, journal_id: str | None = None, timeout_s: float = 60.0
    ) -> int:
        """Follow `topics` (`task:<id>`, `board:<id>`, `agent:<id>`, `*`); returns the journal's head.

        With `after_seq`, what was stored after it comes first. Raises `ClientError` CONFLICT with
        `details["resync_required"]` when that is not possible any more.
        """
        payload = {"topics": topics or ("*",), "after_seq": after_seq, "journal_id": journal_id}
        reply = await self.call("events.subscribe", payload, timeout_s)
        self.journal_id = reply["journal_id"]
        head = int(reply["seq"])
        self.resume_seq = head if after_seq is None else after_seq
        return head

    async def notifications(self) -> AsyncIterator[Notification]:
        """The events as they come. Ends when this client is closed; raises `ClientError` when the connection was."""
        while True:
            while self._notifications:
                notification = self._notifications.popleft()
                if notification.seq is not None:
                    self.resume_seq = notification.seq
                self._changed.set()
                yield notification
            if self._error is not None:
                raise self._error
            await self._wait()

    async def _open(self) -> aiohttp.ClientWebSocketResponse[Any]:
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        try:
            return await self._session.ws_connect(
                self._url,
                headers=headers,
                heartbeat=HEARTBEAT_S,
                max_msg_size=MESSAGE_LIMIT_BYTES,
                decode_text=False,
            )
        except aiohttp.WSServerHandshakeError as error:
            code, message = _REFUSALS.get(error.status, ("UNAVAILABLE", f"No kandev-host there: HTTP {error.status}"))
            raise ClientError(code, f"{message} ({self._url})", {"http_status": error.status}) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ClientError("UNAVAILABLE", f"No host at {self._url}: {error}") from None
        except ValueError as error:
            raise ClientError("BAD_REQUEST", f"Not an address: {self._url} ({error})") from None

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.TEXT:
                self._end(self._why_closed(message))
                return
            try:
                incoming = _decode(message.data)
            except ValueError as error:
                self._end(ClientError("UNAVAILABLE", f"The host does not speak this protocol: {error}"))
                return
            self._take(incoming)
            while len(self._notifications) >= self._limit() and self._error is None:
                await self._wait()

    def _take(self, incoming: _Incoming) -> None:
        if incoming.type == "notification":
            self._notifications.append(
                Notification(
                    id=incoming.id,
                    action=incoming.action or "",
                    payload=incoming.payload,
                    timestamp=incoming.timestamp,
                    seq=incoming.seq,
                )
            )
            self._changed.set()
            return
        answer = self._calls.get(incoming.id or "")
        if answer is not None and not answer.done():
            answer.set_result(incoming)

    def _limit(self) -> int:
        # Whoever calls from within its loop over notifications must get its answer past those that wait.
        return self._buffer * (HARD_LIMIT_FACTOR if self._calls else 1)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _end(self, error: ClientError) -> None:
        if self._error is None:
            self._error = error
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(self._error)
        self._changed.set()

    def _why_closed(self, message: aiohttp.WSMessage) -> ClientError:
        code = self._socket.close_code
        reason = message.extra if message.type is WSMsgType.CLOSE and isinstance(message.extra, str) else ""
        details: dict[str, Any] = {"close_code": code, "reason": reason}
        if found := _SEQ.search(reason):
            details["seq"] = int(found.group(1))
        return ClientError("UNAVAILABLE", f"The host ended the connection ({code}): {reason or 'no reason'}", details)


connect = Client.connect


def _host_error(payload: Any) -> ClientError:
    if not isinstance(payload, dict):
        return ClientError("INTERNAL_ERROR", "The host answered with an error that says nothing")
    details = payload.get("details")
    code, message = str(payload.get("code")), str(payload.get("message"))
    return ClientError(code, message, details if isinstance(details, dict) else None)


def _socket_url(url: str) -> str:
    base = re.sub(r"^ws", "http", url.rstrip("/"))
    return base if base.endswith("/ws") else f"{base}/ws"
