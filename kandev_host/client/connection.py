"""One WebSocket to a host: a reader, the calls that wait for their answers, and the notifications in order."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal

import aiohttp
import anyio
import msgspec
from aiohttp import WSMsgType

from kandev_host.client.address import connector, socket_url
from kandev_host.client.errors import ClientError, ConnectionLost, host_error

BUFFER = 10_000
HARD_LIMIT_FACTOR = 16
MESSAGE_LIMIT_BYTES = 64 << 20
HEARTBEAT_S = 30.0
# Nothing has this id: following it tells of the journal, and leaving it waits for the replays before.
NOBODY = "board:-"
_SEQ = re.compile(r"\bseq=(\d+)")
_REFUSALS = {
    401: ("UNAUTHORIZED", "The host refused the token"),
    403: ("FORBIDDEN", "The host refused this origin"),
    429: ("RATE_LIMITED", "Too many requests; try again in a moment"),
    421: ("BAD_REQUEST", "The host does not answer to this name; use the address that it printed"),
    503: ("BUSY", "The host has no socket left, or is shutting down"),
}


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One event. Transient ones have no `seq`."""

    id: str | None
    action: str
    payload: Any
    timestamp: str
    seq: int | None = None


class Settled(msgspec.Struct, frozen=True):
    """Stands among the notifications where the replays that were asked for before this fence have ended."""

    fence: str


class _Incoming(msgspec.Struct):
    type: Literal["response", "notification", "error"]
    payload: msgspec.Raw
    timestamp: str
    id: str | None = None
    action: str | None = None
    seq: int | None = None


_decode = msgspec.json.Decoder(_Incoming).decode
_decode_payload = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Connection:
    """Entering it connects. At most `buffer` notifications wait to be taken: then reading stops until there is room,
    and the host in the end cuts the connection (4408). While a call waits it goes on, up to 16 times as many.
    """

    def __init__(self, url: str, token: str | None, timeout_s: float, buffer: int) -> None:
        self._address = url
        self._url = socket_url(url)
        self._token = token
        self._timeout_s = timeout_s
        self._buffer = buffer
        self._calls: dict[str, asyncio.Future[_Incoming]] = {}
        self._fences: set[str] = set()
        self._waiting: deque[Notification | Settled] = deque()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self.error: ClientError | None = None

    async def __aenter__(self) -> Connection:
        try:
            self._session = aiohttp.ClientSession(connector=connector(self._address))
        except OSError as error:
            raise ConnectionLost(f"No host at {self._address}: {error.strerror or error}") from None
        except ValueError as error:
            raise ClientError("BAD_REQUEST", f"Not an address: {self._address} ({error})") from None
        try:
            with anyio.fail_after(self._timeout_s):
                self._socket = await self._open()
        except TimeoutError:
            await self._close(self._session.close)
            raise ClientError("TIMEOUT", f"No answer from {self._url} within {self._timeout_s:g} s") from None
        except BaseException:
            await self._close(self._session.close)
            raise
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(ConnectionLost("This client is closed"))
        self._group.cancel_scope.cancel()
        try:
            # The body's own error goes on as it is, not inside an exception group.
            await self._group.__aexit__(None, None, None)
        finally:
            await self._close(self._socket.close)
            await self._close(self._session.close)

    async def _close(self, close: Callable[[], Awaitable[object]]) -> None:
        """Also when this task is cancelled, but not for ever."""
        with anyio.move_on_after(self._timeout_s, shield=True):
            await close()

    async def ended(self) -> ClientError:
        """Wait for the end of the connection; why it came."""
        await self._ended.wait()
        assert self.error is not None
        return self.error

    async def ask(self, id: str, action: str, payload: object) -> msgspec.Raw:
        """The payload of the response. Raises `ClientError` with the host's code, or `ConnectionLost`."""
        if self.error is not None:
            raise self.error
        if id in self._calls:
            raise ClientError("CONFLICT", f"The request {id} is on its way already")
        answer: asyncio.Future[_Incoming] = asyncio.get_running_loop().create_future()
        self._calls[id] = answer
        self._changed.set()
        try:
            await self._send(id, action, payload)
            message = await answer
        finally:
            del self._calls[id]
            if answer.done() and not answer.cancelled():
                answer.exception()  # it may have come while sending failed: then nobody else asks for it
        if message.type == "error":
            raise host_error(message.payload)
        return message.payload

    async def fence(self, id: str) -> None:
        """Have a `Settled` of this id put where the replays that were asked for so far have ended."""
        self._fences.add(id)
        # The host takes replays and unsubscriptions of one socket in turn, and sends in that order.
        await self._send(id, "events.unsubscribe", {"topics": [NOBODY]})

    async def first(self) -> Notification | Settled:
        """The one that `take` takes next; raises why the connection ended when none is left."""
        while not self._waiting:
            if self.error is not None:
                raise self.error
            await self._wait()
        return self._waiting[0]

    async def take(self) -> Notification | Settled:
        """The next one. Raises as `first`."""
        await self.first()
        taken = self._waiting.popleft()
        self._changed.set()
        return taken

    async def _send(self, id: str, action: str, payload: object) -> None:
        request = {"id": id, "type": "request", "action": action, "payload": {} if payload is None else payload}
        try:
            text = _encode(request).decode()
        except UnicodeEncodeError as error:  # a lone surrogate, as in half an emoji
            raise ClientError("BAD_REQUEST", f"This cannot be sent: {error}") from None
        try:
            await self._socket.send_str(text)
        except ConnectionError:
            # The transport knows before the reader does. Whoever asks again must not find this one alive.
            lost = self.error or ConnectionLost("The connection is lost")
            self._end(lost)
            raise lost from None

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
        except aiohttp.ServerFingerprintMismatch:
            raise ClientError("UNAUTHORIZED", f"The host at {self._url} has another certificate") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost(f"No host at {self._url}: {error}") from None
        except ValueError as error:
            raise ClientError("BAD_REQUEST", f"Not an address: {self._url} ({error})") from None

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.TEXT:
                self._end(self._why_closed(message))
                return
            try:
                self._take(_decode(message.data))
            except (ValueError, RecursionError) as error:
                self._end(ConnectionLost(f"The host does not speak this protocol: {error}"))
                return
            while len(self._waiting) >= self._limit() and self.error is None:
                await self._wait()

    def _take(self, incoming: _Incoming) -> None:
        if incoming.type == "notification":
            self._put(
                Notification(
                    id=incoming.id,
                    action=incoming.action or "",
                    payload=_decode_payload(incoming.payload),
                    timestamp=incoming.timestamp,
                    seq=incoming.seq,
                )
            )
        elif incoming.id is not None and incoming.id in self._fences:
            self._fences.discard(incoming.id)
            if incoming.type == "error":
                refused = host_error(incoming.payload)
                self._end(ConnectionLost(f"The end of a replay cannot be told: {refused.message}", refused.details))
            else:
                self._put(Settled(incoming.id))
        else:
            answer = self._calls.get(incoming.id or "")
            if answer is not None and not answer.done():
                answer.set_result(incoming)

    def _put(self, item: Notification | Settled) -> None:
        self._waiting.append(item)
        self._changed.set()

    def _limit(self) -> int:
        # Whoever calls from within its loop over notifications must get its answer past those that wait.
        return self._buffer * (HARD_LIMIT_FACTOR if self._calls else 1)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _end(self, error: ClientError) -> None:
        if self.error is None:
            self.error = error
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(self.error)
        self._ended.set()
        self._changed.set()

    def _why_closed(self, message: aiohttp.WSMessage) -> ClientError:
        code = self._socket.close_code
        reason = message.extra if message.type is WSMsgType.CLOSE and isinstance(message.extra, str) else ""
        details: dict[str, Any] = {"close_code": code, "reason": reason}
        if found := _SEQ.search(reason):
            details["seq"] = int(found.group(1))
        return ConnectionLost(f"The host ended the connection ({code}): {reason or 'no reason'}", details)
