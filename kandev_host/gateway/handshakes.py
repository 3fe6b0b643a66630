"""A peer that connects and does not send a whole request is dropped in time: aiohttp itself would wait for ever.

So is one that does not send the body, or take the answer, of a request that is no socket. One that sends no HTTP is
answered like all others.
"""

from __future__ import annotations

import asyncio

import anyio
from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

from kandev_host.gateway.guard import HEADERS, refusal
from kandev_host.settings import GatewaySettings

SOCKETS = "/ws"
LINGER_S = 1.0  # what a peer still sends after its answer is read so long, so that it gets the answer


class Peer(RequestHandler):
    """One connection. What is no HTTP gets our words and headers, not those of aiohttp with the line in question."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # writes it down; raises if something was sent before
        if status < 500:
            response = refusal(status, "BAD_REQUEST", "This is not HTTP as it is spoken here")
        else:
            response = refusal(status, "INTERNAL_ERROR", "Something unforeseen went wrong; the host's log has it")
        response.headers.update(HEADERS)
        response.force_close()
        return response


class Handshakes:
    """Drops connections that have been without a request for `handshake_timeout_s`, new and kept-alive ones alike.

    Beyond `handshakes_limit` of them the one that has been waiting longest goes: who sends its request at once is not
    hindered.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._timeout_s = settings.handshake_timeout_s
        self._limit = settings.handshakes_limit
        self._busy: set[RequestHandler] = set()
        self._idle_since: dict[RequestHandler, float] = {}
        self._sweep_timer: asyncio.TimerHandle | None = None

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        protocol = request.protocol
        self._busy.add(protocol)
        self._idle_since.pop(protocol, None)
        try:
            if request.path == SOCKETS:
                return await handler(request)
            with anyio.fail_after(self._settings.http_timeout_s):
                return await handler(request)
        except TimeoutError:
            answer = refusal(503, "TIMEOUT", f"This took longer than {self._settings.http_timeout_s:g} s")
            answer.force_close()
            return answer
        finally:
            self._busy.discard(protocol)

    def connected(self, server: web.Server) -> RequestHandler:
        """What serves a new connection."""
        limit_bytes = self._settings.header_limit_bytes
        handler = Peer(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is none, as aiohttp's own runner passes it
            max_line_size=limit_bytes,
            max_field_size=limit_bytes,
            max_headers=self._settings.headers_limit,
            lingering_time=LINGER_S,
        )
        while len(self._idle_since) >= self._limit:
            oldest = next(iter(self._idle_since))
            del self._idle_since[oldest]
            _drop(oldest)
        self._idle_since[handler] = asyncio.get_running_loop().time()
        return handler

    def watch(self, server: web.Server) -> None:
        """Look at the server's connections from now on, until `close`."""
        loop = asyncio.get_running_loop()
        self._sweep(server, loop.time())
        self._sweep_timer = loop.call_later(self._timeout_s / 4, self.watch, server)

    def close(self) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None

    def _sweep(self, server: web.Server, now: float) -> None:
        idle = [each for each in server.connections if each not in self._busy]
        self._idle_since = {each: self._idle_since.get(each, now) for each in idle}
        for each, since in self._idle_since.items():
            if now - since >= self._timeout_s:
                _drop(each)


def _drop(peer: RequestHandler) -> None:
    if peer.transport is not None:
        peer.transport.abort()
