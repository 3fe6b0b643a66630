"""The gateway: the listening socket, its routes, and every connection it has."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
from aiohttp import WSCloseCode, web, web_response
from aiohttp.http_exceptions import HttpProcessingError

from kandev_host.audit.log import Audit, NoAudit
from kandev_host.errors import StartupError
from kandev_host.gateway.access import Access
from kandev_host.gateway.agent_logins import WithAgents
from kandev_host.gateway.auditing import Auditing
from kandev_host.gateway.auth import Auth
from kandev_host.gateway.certificate import Certificate
from kandev_host.gateway.connection import Connection, Shared
from kandev_host.gateway.dispatch import Dispatcher
from kandev_host.gateway.floors import Floors
from kandev_host.gateway.guard import PRINCIPAL, Guard, add_headers, refusal
from kandev_host.gateway.handshakes import Handshakes
from kandev_host.gateway.limits import Seats
from kandev_host.gateway.listening import Address, is_local, leave, listen, look_at
from kandev_host.gateway.logins import Logins
from kandev_host.gateway.receipts import Receipts
from kandev_host.gateway.schema import SchemaRoute
from kandev_host.interfaces import ALL_BOARDS, ROLES, Action, Authenticator, Issuer, Route, scopes_of
from kandev_host.settings import GatewaySettings, ServerSettings

STOP_S = 3.0
# Revoked credentials lose their sockets within a second: this long until it is noticed, then half a second to say so.
REVIEW_S = 0.25

# aiohttp answers malformed HTTP before any hook of ours, and would name its own and Python's version there.
setattr(web_response, "SERVER_SOFTWARE", "kandev-host")  # noqa: B010 - no name that mypy lets one assign


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Not the stack trace that aiohttp would write for every peer that sends malformed HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _names_no_protocols(record: logging.LogRecord) -> bool:
    """Not the line in which aiohttp would write down what a client offered: one of that is its token."""
    return "protocols" not in record.msg


logging.getLogger("aiohttp.server").addFilter(_worth_a_line)
logging.getLogger("aiohttp.websocket").addFilter(_names_no_protocols)


class Gateway:
    """Serves `actions` on `GET /ws` and the plugins' `routes` to holders of a token, health and schema to all."""

    def __init__(
        self,
        services: Floors,
        *,
        actions: Iterable[Action[Any]],
        routes: Iterable[Route],
        authenticator: Authenticator,
        server: ServerSettings,
        settings: GatewaySettings,
        certificate: Certificate | None = None,
        latency: Callable[[float], None] | None = None,
        healthy: Callable[[], bool] = lambda: True,
        audit: Audit | None = None,
    ) -> None:
        """`latency` is told how late sockets get what agents say; `healthy` is what `/health` says.

        `ready` is what `/ready` says: whoever opens the gateway sets it once the whole host stands. `scopes` are all
        that something is asked for here, or that a role has.
        """
        self.ready = False
        self._healthy = healthy
        self._server = server
        self._settings = settings
        self._certificate = certificate
        logins = Logins(
            WithAgents(authenticator, services.agent_tokens),
            session_lifetime_s=settings.session_lifetime_s,
            ticket_lifetime_s=settings.ticket_lifetime_s,
            issuer=authenticator if isinstance(authenticator, Issuer) else None,
        )
        audit = audit or NoAudit()
        self._guard = Guard(logins, settings, audit)
        self._auth = Auth(self._guard, logins, self._origin, self._review_soon, audit)
        journal = services.journal
        receipts = Receipts(services.store, journal)
        served = (*actions, *self._auth.actions())
        self._schema = SchemaRoute(served, settings, lambda: self._address)
        access = Access(services.ownership)
        auditing = Auditing(audit, self._guard.forbidden, services.ownership.place)
        dispatcher = Dispatcher(
            served, lambda: journal.published_seq, receipts, access, settings.json_depth_limit, auditing
        )
        seats = Seats(settings.sockets_total, settings.sockets_per_principal, settings.sockets_per_address)
        self._shared = Shared(settings, self._guard, dispatcher, seats, services, latency)
        self._handshakes = Handshakes(settings)
        self._connections: set[Connection] = set()
        self._stopping = False
        self._left = asyncio.Event()
        routes = tuple(routes)
        asked_for = {*(action.scope for action in served), *(route.scope for route in routes)}
        of_roles = {scope for role in ROLES for scope in scopes_of(role)}
        self.scopes = frozenset({ALL_BOARDS, *asked_for, *of_roles} - {"", "*"})
        self._runner = self._make_runner(routes)
        self._address = Address("http", server.host, server.port)
        self._listening: asyncio.Server | None = None
        self._bound: os.stat_result | None = None
        self._review_timer: asyncio.TimerHandle | None = None

    @property
    def url(self) -> str:
        """Where it listens, as in http://127.0.0.1:8080 or unix:///home/me/.kandev/host.sock; known after `start`."""
        return self._address.url

    @property
    def sockets(self) -> int:
        """How many sockets are open, or closed with something still at work that they began."""
        return len(self._connections)

    @property
    def seats_taken(self) -> int:
        """How many of `sockets_total` are taken."""
        return self._shared.seats.taken

    async def start(self) -> None:
        """Bind and serve. Raises `StartupError` when the address cannot be had."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        tls = self._certificate.context if self._certificate is not None else None
        try:
            self._listening, self._address = await listen(
                self._server, lambda: self._handshakes.connected(server), tls, self._settings.handshake_timeout_s
            )
        except BaseException:
            await self._runner.cleanup()
            raise
        if self._address.scheme == "unix":
            self._bound = look_at(Path(self._address.host))
        self._guard.listen_on(self._address)
        self._handshakes.watch(server)
        self._review()

    async def stop(self) -> None:
        """Refuse new sockets, close the open ones with 1001, and stop listening. Takes at most some seconds."""
        self._stopping = True
        self.ready = False
        self._handshakes.close()
        for connection in tuple(self._connections):
            connection.close(WSCloseCode.GOING_AWAY, "The host is shutting down")
        with anyio.move_on_after(STOP_S, shield=True):
            while self._connections:
                self._left.clear()
                await self._left.wait()
        for connection in tuple(self._connections):
            connection.abort()
        if self._review_timer is not None:
            self._review_timer.cancel()
        if self._listening is not None:
            self._listening.close()
            leave(self._address, self._bound)
        await self._runner.cleanup()

    def reload(self) -> None:
        """Take over what the settings say now: names, origins, rates, seats. What is open stays."""
        settings = self._settings
        self._guard.listen_on(self._address)
        self._shared.seats.change(settings.sockets_total, settings.sockets_per_principal, settings.sockets_per_address)

    def _review(self) -> None:
        """Close the sockets of all who lost the right to them, and look whether there is a new certificate."""
        for connection in tuple(self._connections):
            connection.review()
        if self._certificate is not None:
            self._certificate.follow()
        self._review_timer = asyncio.get_running_loop().call_later(REVIEW_S, self._review)

    def _review_soon(self) -> None:
        """Not before the answer that is just being given."""
        loop = asyncio.get_running_loop()
        for connection in tuple(self._connections):
            loop.call_soon(connection.review)

    def _origin(self) -> str | None:
        """Where browsers reach it; None on a Unix socket."""
        address = self._address
        if address.scheme == "unix":
            return None
        names = self._settings.hosts
        return f"{address.scheme}://{names[0]}" if names and not is_local(self._server) else address.url

    def _make_runner(self, routes: Iterable[Route]) -> web.AppRunner:
        app = web.Application(
            middlewares=[self._handshakes.middleware, self._guard.middleware],
            client_max_size=self._settings.body_limit_bytes,
        )
        app.on_response_prepare.append(add_headers)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/schema.json", self._schema.serve)
        app.router.add_get("/ws", self._socket, allow_head=False)
        self._auth.add_routes(app.router)
        taken = {resource.canonical for resource in app.router.resources()}
        for route in routes:
            if route.path in taken:
                raise StartupError(f"The path {route.path} is the host's own: give the plugin's route another")
            app.router.add_route(route.method, route.path, self._guard.protected(route))
        return web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)

    async def _health(self, _request: web.Request) -> web.Response:
        """200 as long as somebody answers: a host that is degraded is not made well by being started again."""
        return web.json_response({"status": "ok" if self._healthy() else "degraded"})

    async def _ready(self, _request: web.Request) -> web.Response:
        ready = self.ready and not self._stopping
        return web.json_response({"status": "ready" if ready else "not ready"}, status=200 if ready else 503)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self._stopping:
            return refusal(503, "UNAVAILABLE", "The host is shutting down")
        if not web.WebSocketResponse().can_prepare(request):
            return refusal(426, "BAD_REQUEST", "This address speaks WebSocket")
        connection = Connection(self._shared, request, request.get(PRINCIPAL))
        try:
            return await connection.run(self._on_open)
        finally:
            self._connections.discard(connection)
            self._left.set()

    def _on_open(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self._stopping:
            connection.close(WSCloseCode.GOING_AWAY, "The host is shutting down")
