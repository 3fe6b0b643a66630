"""One socket: a reader that serves requests, an outbox, and the task that waits when the peer does not read.

The reader answers quick requests itself and gives the others a task each. Nothing here waits for a slow peer without
a deadline: a full transport starts a stall timer, and a full outbox cuts the socket at once (close code 4408).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import anyio
import anyio.lowlevel
import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from kandev_host.errors import KandevError, RateLimited, Unauthorized
from kandev_host.events import Event
from kandev_host.gateway.access import sees
from kandev_host.gateway.dispatch import Dispatcher, Pending
from kandev_host.gateway.entering import enter, first_message
from kandev_host.gateway.floors import Floors
from kandev_host.gateway.guard import SUBPROTOCOL, Guard
from kandev_host.gateway.latency import watched
from kandev_host.gateway.limits import RateLimit, Seat, Seats, address_of
from kandev_host.gateway.outbox import PONG, Outbox, wire
from kandev_host.gateway.receipts import Memory
from kandev_host.gateway.subscriptions import Subscriptions, Trimmed
from kandev_host.interfaces import Principal
from kandev_host.protocol.envelope import (
    BadEnvelope,
    decode_request,
    encode_error,
    encode_notification,
    encode_response,
)
from kandev_host.settings import GatewaySettings

logger = logging.getLogger(__name__)

UNAUTHENTICATED = 4401
REVOKED = "These credentials were revoked, or have expired"
TOO_SLOW = 4408
# After so many refusals in a row the reader sleeps until there is room: refusing must not be free to demand.
REFUSALS_IN_A_ROW = 32
REFUSAL_SLEEP_S = 1.0
# Deep and bushy JSON takes the longest to check and to decode: it counts as several requests.
LARGE_BYTES = 64 << 10
BRACKETS_PER_REQUEST = 1000
ROUND = 64
NOTSENT_LIMIT_BYTES = 512 << 10
# RFC 6455, 5.5: a control frame holds 125 bytes, two of them the code.
REASON_LIMIT_BYTES = 123
# Whoever lost the right to a socket loses it, also when it does not answer.
REVOKED_GOODBYE_S = 0.5
REVOKED_ANSWERS_S = 0.2


class Frames:
    """The frame of the event that is just being published, shared by all its subscribers."""

    def __init__(self) -> None:
        self._event: Event | None = None
        self._frame = b""

    def of(self, event: Event) -> bytes:
        if event is not self._event:
            self._frame = wire(encode_notification(event))
            self._event = event
        return self._frame


class Shared(msgspec.Struct, frozen=True):
    """What all sockets of a gateway have in common."""

    settings: GatewaySettings
    guard: Guard
    dispatcher: Dispatcher
    seats: Seats
    floors: Floors
    latency: Callable[[float], None] | None = None
    frames: Frames = msgspec.field(default_factory=Frames)


class Connection:
    """Serves one socket from the upgrade to its end."""

    def __init__(self, shared: Shared, request: web.Request, principal: Principal | None) -> None:
        settings = shared.settings
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("The peer left before the upgrade")
        self._shared = shared
        self._request = request
        self._transport = transport
        self._principal: Principal | None = None
        self._sees: Callable[[Event], bool] | None = None
        self.address = address_of(request.remote)
        self._socket = web.WebSocketResponse(
            timeout=settings.slow_client_timeout_s,
            autoping=False,
            heartbeat=settings.heartbeat_s,
            protocols=(SUBPROTOCOL,),
            compress=False,
            max_msg_size=settings.message_limit_bytes,
            # Every frame sent through aiohttp then waits while the transport is full: `_unstall` relies on it.
            writer_limit=0,
            decode_text=False,
        )
        protocol = request.protocol
        self._outbox = Outbox(
            transport,
            lambda: protocol.writing_paused,
            self._on_pause,
            settings.outbound_limit_messages,
            settings.outbound_limit_bytes,
        )
        self._stalled = asyncio.Event()
        self._rate = RateLimit(settings.requests_per_s, settings.request_burst)
        self._reading = anyio.CancelScope()
        self._abandonable: set[asyncio.Task[None]] = set()
        self._working = 0
        self._limit = settings.concurrent_requests
        self._refused = 0
        self._loop = asyncio.get_running_loop()
        self._slot = asyncio.Event()
        self._ending: tuple[int, str] | None = None
        floors = shared.floors
        self.memory = Memory()
        if principal is not None:
            self._belong_to(principal)
        heard = watched(shared.latency, self._outbox)
        on_live = None if heard is None else lambda event: heard(event) if self._shows(event) else None
        self.subscriptions = Subscriptions(
            floors.store, floors.bus, floors.journal, self, floors.audiences, on_live=on_live
        )

    # What dispatch and subscriptions see.

    @property
    def principal(self) -> Principal:
        if self._principal is None:
            raise Unauthorized("Nobody is logged in on this socket")
        return self._principal

    def renew(self, principal: Principal) -> None:
        self._belong_to(principal)

    def reply(self, frame: bytes) -> None:
        self._outbox.put(wire(frame), force=True)

    def resume_from(self, seq: int) -> None:
        # An empty frame: it takes its turn behind what waits already.
        self._outbox.put(b"", seq, force=True)

    def deliver(self, event: Event, resume_seq: int | None) -> None:
        if self._sees is not None and not self._sees(event):
            return
        if not self._outbox.put(self._shared.frames.of(event), resume_seq) and self._ending is None:
            self._cut()

    def _shows(self, event: Event) -> bool:
        return self._sees is None or self._sees(event)

    async def room(self, size: int) -> None:
        await self._outbox.room(size)

    # Its life.

    def _belong_to(self, principal: Principal) -> None:
        self._principal = principal
        self._sees = sees(principal)

    def review(self) -> None:
        """Close it if the one it belongs to has lost the right to it."""
        if self._ending is None and self._principal is not None and not self._shared.guard.holds(self._principal):
            self._shared.guard.revoked(self._principal, self.address)
            self.close(UNAUTHENTICATED, REVOKED)

    def close(self, code: int, reason: str) -> None:
        """End the socket with this close code; the first one counts. Returns at once."""
        if self._ending is None:
            self._ending = (code, reason)
            self.subscriptions.close()
            self._reading.cancel()

    def abort(self) -> None:
        """Drop the peer without a word."""
        self._transport.abort()

    async def run(self, on_open: Callable[[Connection], None]) -> web.WebSocketResponse:
        """Upgrade, serve, close. What was begun and changes something is carried to its end."""
        seat = self._shared.seats.take(self._principal.id if self._principal is not None else None, self.address)
        leave: Callable[[], None] = seat.leave
        try:
            await self._socket.prepare(self._request)
            self._limit_kernel()
            on_open(self)
            # asyncio's own task group: a task of anyio's costs five times as much, and each request needs one.
            async with asyncio.TaskGroup() as tasks:
                unstalling = tasks.create_task(self._unstall())
                with self._reading:
                    if self._principal is not None or await self._log_in(seat):
                        await self._serve(tasks)
                self.subscriptions.close()
                for task in tuple(self._abandonable):
                    task.cancel()
                await self._answered()
                await self._end()
                leave = seat.closed()
                unstalling.cancel()
        finally:
            self.subscriptions.close()
            self._outbox.shut()
            self._transport.abort()
            self._socket._cancel_heartbeat()  # the peer's goodbye began it anew: all of this would stay for 45 s
            leave()
        return self._socket

    async def _log_in(self, seat: Seat) -> bool:
        """`auth.login` or `auth.refresh` as first message, in time. False when the socket is to close."""
        late = f"Log in with auth.login within {self._shared.settings.login_timeout_s:g} s"
        with anyio.move_on_after(self._shared.settings.login_timeout_s):
            message = await self._socket.receive()
            while message.type in {WSMsgType.PING, WSMsgType.PONG}:
                message = await self._socket.receive()
            if message.type is not WSMsgType.TEXT:
                self._on_other(message.type)
                late = "The first message must be auth.login"
            else:
                late = await self._check_login(message.data, seat)
        if self._principal is None:
            self.close(UNAUTHENTICATED, late)
        return self._principal is not None

    async def _check_login(self, frame: bytes, seat: Seat) -> str:
        """ "" when the frame logged somebody in, else what was wrong."""
        try:
            request = decode_request(frame, self._shared.settings.json_depth_limit)
        except BadEnvelope as error:
            self.reply(encode_error(error.id, error.action, error))
            return "The first message must be auth.login"
        try:
            shown = first_message(request.action, request.payload)
            principal, reply = await enter(self._shared.guard, shown, self.address)
            seat.move(principal.id)
        except KandevError as error:
            self.reply(encode_error(request.id, request.action, error))
            return error.message
        self._belong_to(principal)
        self.reply(encode_response(request.id, request.action, reply))
        return ""

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        receive, outbox = self._socket.receive, self._outbox
        served = 0
        while True:
            message = await receive()
            if message.type is WSMsgType.TEXT or message.type is WSMsgType.PING:
                wait = self._rate.admit(self._loop.time()) or self._shared.guard.wait_of(self.principal)
                if wait:
                    await self._refuse(message, wait)
                else:
                    self._refused = 0
                    self._take(message, tasks)
            elif not self._on_other(message.type):
                return
            if self._working >= self._limit:
                await self._free_slot()
            if outbox.crowded:
                await outbox.room()
            served += 1
            if served % ROUND == 0:
                await anyio.lowlevel.checkpoint()

    async def _refuse(self, message: WSMessage, wait: float) -> None:
        self._refused += 1
        if message.type is WSMsgType.TEXT:
            self._shared.dispatcher.refuse(message.data, RateLimited(round(wait, 3)), self)
        if self._refused % REFUSALS_IN_A_ROW == 0 or _is_large(message):
            await anyio.sleep(min(wait, REFUSAL_SLEEP_S))

    def _take(self, message: WSMessage, tasks: asyncio.TaskGroup) -> None:
        if message.type is WSMsgType.PING:
            self._outbox.put(wire(bytes(message.data), PONG), force=True)
            return
        if _is_large(message):
            brackets = message.data.count(b"[") + message.data.count(b"{")
            self._rate.charge(brackets // BRACKETS_PER_REQUEST)
        if not self._shared.guard.holds(self.principal):
            self.review()
            return
        pending = self._shared.dispatcher.serve(message.data, self)
        if pending is not None:
            self._working += 1
            task = tasks.create_task(self._work(pending), context=pending.context)
            if pending.abandonable:
                self._abandonable.add(task)
                task.add_done_callback(self._abandonable.discard)

    async def _free_slot(self) -> None:
        while self._working >= self._limit:
            self._slot.clear()
            await self._slot.wait()

    async def _work(self, pending: Pending) -> None:
        try:
            await pending.run()
        except Trimmed as error:
            self.close(TOO_SLOW, f"{error}; read everything anew; seq={self._outbox.delivered_seq}")
        except Exception:
            # Errors of requests are answered: this one came after the answer, so what was promised cannot be kept.
            logger.exception("A replay failed")
            self.close(WSCloseCode.INTERNAL_ERROR, "The replay failed; come back with after_seq")
        finally:
            self._working -= 1
            self._slot.set()

    def _on_other(self, kind: WSMsgType) -> bool:
        """True to go on reading."""
        if kind is WSMsgType.PONG:
            return True
        if kind is WSMsgType.BINARY:
            self.close(WSCloseCode.UNSUPPORTED_DATA, "Messages are text")
        return False

    # A peer that does not read.

    def _on_pause(self) -> None:
        self._stalled.set()

    def _cut(self) -> None:
        seq = self._outbox.delivered_seq
        self._outbox.clear()
        logger.info("A slow client was cut; it got everything up to seq %d", seq)
        self.close(TOO_SLOW, f"Too slow; come back with after_seq; seq={seq}")

    async def _unstall(self) -> None:
        """Whenever the transport is full: wait for it, but not for ever, and send on."""
        while True:
            await self._stalled.wait()
            self._stalled.clear()
            # A timer, not a cancel scope: cancelling aiohttp's drain would cancel it for all who wait.
            timer = self._loop.call_later(self._shared.settings.slow_client_timeout_s, self._on_stall)
            try:
                # An unsolicited pong (RFC 6455, 5.5.3) is aiohttp's only public way to wait for the transport.
                await self._socket.pong()
            except ConnectionError:
                self._outbox.shut()
                return
            finally:
                timer.cancel()
            self._outbox.flush()

    def _on_stall(self) -> None:
        if self._ending is None:
            self._cut()
        else:
            self.abort()

    async def _answered(self) -> None:
        """Whose own request ended the credentials, as a new password does, hears that it was done."""
        if self._ending == (UNAUTHENTICATED, REVOKED):
            with anyio.move_on_after(REVOKED_ANSWERS_S):
                while self._working:
                    self._slot.clear()
                    await self._slot.wait()

    async def _end(self) -> None:
        """Say goodbye, within the time a slow client has."""
        self._outbox.flush()
        if self._ending is not None and not self._socket.closed:
            await self._say_goodbye(*self._ending)
        # What the transport still holds is for nobody: the peer had its time to take it.
        self._outbox.shut()
        self._transport.abort()

    async def _say_goodbye(self, code: int, reason: str) -> None:
        limit_s = self._shared.settings.slow_client_timeout_s
        with anyio.move_on_after(min(limit_s, REVOKED_GOODBYE_S) if reason == REVOKED else limit_s, shield=True):
            await self._socket.close(code=code, message=reason.encode()[:REASON_LIMIT_BYTES], drain=False)

    def _limit_kernel(self) -> None:
        # Else Linux takes megabytes for a peer that reads nothing, and it is noticed late.
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LIMIT_BYTES)


def _is_large(message: WSMessage) -> bool:
    return message.type is WSMsgType.TEXT and len(message.data) > LARGE_BYTES
