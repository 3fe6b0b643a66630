"""The gateway: the listening socket, its routes, and every connection it has."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterable
from typing import Any

import anyio
from aiohttp import WSCloseCode, web, web_response
from aiohttp.http_exceptions import HttpProcessingError

from kandev_host.errors import Conflict, StartupError
from kandev_host.gateway.connection import UNAUTHENTICATED, Connection, Floors, Shared, logged_in
from kandev_host.gateway.dispatch import Dispatcher
from kandev_host.gateway.guard import Guard, add_headers, refusal
from kandev_host.gateway.handshakes import Handshakes
from kandev_host.gateway.limits import Seats
from kandev_host.gateway.receipts import Receipts
from kandev_host.gateway.schema import SchemaRoute
from kandev_host.interfaces import Action, Authenticator, Call, Route
from kandev_host.protocol.actions.auth import Login, LoginReply
from kandev_host.settings import GatewaySettings, ServerSettings

STOP_S = 3.0
BODY_LIMIT_BYTES = 1 << 20

# aiohttp answers malformed HTTP before any hook of ours, and would name its own and Python's version there.
setattr(web_response, "SERVER_SOFTWARE", "kandev-host")  # noqa: B010 - no name that mypy lets one assign


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Not the stack trace that aiohttp would write for every peer that sends malformed HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


logging.getLogger("aiohttp.server").addFilter(_worth_a_line)


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
        latency: Callable[[float], None] | None = None,
    ) -> None:
        """`latency` is told how late sockets get what agents say."""
        self._server = server
        self._settings = settings
        self._guard = Guard(authenticator, settings.origins)
        journal = services.journal
        login = Action("auth.login", Login, self._log_in, scope="", summary="Who am I? Checks a token", keeps="nothing")
        receipts = Receipts(services.store, journal)
        served = (*actions, login)
        self._schema = SchemaRoute(served, settings, lambda: self.url.removeprefix("http://"))
        dispatcher = Dispatcher(served, lambda: journal.published_seq, receipts, settings.json_depth_limit)
        seats = Seats(settings.sockets_total, settings.sockets_per_principal)
        self._shared = Shared(settings, self._guard, dispatcher, seats, services, latency)
        self._handshakes = Handshakes(settings.handshake_timeout_s)
        self._connections: set[Connection] = set()
        self._stopping = False
        self._left = asyncio.Event()
        self._runner = self._make_runner(routes)
        self._port = server.port

    @property
    def url(self) -> str:
        """Where it listens, as in http://127.0.0.1:8080; known after `start`."""
        host = self._server.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

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
        host, port = self._server.host, self._server.port
        try:
            await web.TCPSite(self._runner, host, port, backlog=1024).start()
        except OSError as error:
            await self._runner.cleanup()
            raise StartupError(_why_not(error, host, port)) from error
        self._port = int(self._runner.addresses[0][1])
        self._guard.listen_on(host, self._port)
        if self._runner.server is not None:
            self._handshakes.watch(self._runner.server)

    async def stop(self) -> None:
        """Refuse new sockets, close the open ones with 1001, and stop listening. Takes at most some seconds."""
        self._stopping = True
        self._handshakes.close()
        for connection in tuple(self._connections):
            connection.close(WSCloseCode.GOING_AWAY, "The host is shutting down")
        with anyio.move_on_after(STOP_S, shield=True):
            while self._connections:
                self._left.clear()
                await self._left.wait()
        for connection in tuple(self._connections):
            connection.abort()
        await self._runner.cleanup()

    def disconnect(self, principal_id: str) -> None:
        """Close every socket of a principal whose credentials were revoked."""
        for connection in tuple(self._connections):
            if connection.principal_id == principal_id:
                connection.close(UNAUTHENTICATED, "These credentials were revoked")

    def _make_runner(self, routes: Iterable[Route]) -> web.AppRunner:
        app = web.Application(
            middlewares=[self._handshakes.middleware, self._guard.middleware], client_max_size=BODY_LIMIT_BYTES
        )
        app.on_response_prepare.append(add_headers)
        app.router.add_get("/health", _health)
        app.router.add_get("/schema.json", self._schema.serve)
        app.router.add_get("/ws", self._socket, allow_head=False)
        taken = {resource.canonical for resource in app.router.resources()}
        for route in routes:
            if route.path in taken:
                raise StartupError(f"The path {route.path} is the host's own: give the plugin's route another")
            app.router.add_route(route.method, route.path, self._guard.protected(route))
        return web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self._stopping:
            return refusal(503, "UNAVAILABLE", "The host is shutting down")
        if not web.WebSocketResponse().can_prepare(request):
            return refusal(426, "BAD_REQUEST", "This address speaks WebSocket")
        principal = await self._guard.credentials(request)
        connection = Connection(self._shared, request, principal)
        try:
            return await connection.run(self._on_open)
        finally:
            self._connections.discard(connection)
            self._left.set()

    async def _log_in(self, call: Call, request: Login) -> LoginReply:
        """On a socket that is logged in already: it stays whose it is."""
        principal = await self._guard.authenticate(request.token)
        if principal.id != call.principal.id:
            raise Conflict("This socket is somebody else's; open another one")
        return logged_in(principal)

    def _on_open(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self._stopping:
            connection.close(WSCloseCode.GOING_AWAY, "The host is shutting down")


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: stop what listens there, or choose another with --port"
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} needs privileges: choose one above 1023 with --port"
    return f"The gateway cannot listen on {host}:{port}: {error.strerror or error}"
