"""How people come in and leave: the actions `auth.*`, and the page that a log-in link leads to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib.resources import files
from typing import Any

import msgspec
from aiohttp import web

from kandev_host.audit.acting import named, take_owed
from kandev_host.audit.log import Audit
from kandev_host.errors import Conflict, KandevError, Unauthorized, ValidationFailed
from kandev_host.gateway.connection import logged_in
from kandev_host.gateway.guard import Guard, refusal
from kandev_host.gateway.limits import address_of
from kandev_host.gateway.logins import Logins
from kandev_host.interfaces import Action, Call
from kandev_host.models import AuditRow, now
from kandev_host.protocol.actions.auth import (
    TICKET_LIMIT_CHARS,
    Login,
    LoginReply,
    Logout,
    LogoutReply,
    Ticket,
    TicketReply,
)

PAGE = "/login"
BODY_LIMIT_BYTES = 4096
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_FILES = {PAGE: "text/html", f"{PAGE}.js": "text/javascript", f"{PAGE}.css": "text/css"}


class _Exchange(msgspec.Struct, forbid_unknown_fields=True):
    ticket: str


class Auth:
    """`origin` is where browsers reach the host, None when they cannot; `revoked` is called after each logout."""

    def __init__(
        self,
        guard: Guard,
        logins: Logins,
        origin: Callable[[], str | None],
        revoked: Callable[[], None],
        audit: Audit,
    ) -> None:
        self._guard = guard
        self._logins = logins
        self._origin = origin
        self._revoked = revoked
        self._audit = audit
        pages = files("kandev_host.gateway").joinpath("pages")
        self._pages = {
            path: pages.joinpath(f"login.{kind.rpartition('/')[2].replace('javascript', 'js')}").read_bytes()
            for path, kind in _FILES.items()
        }

    def actions(self) -> tuple[Action[Any], ...]:
        return (
            Action("auth.login", Login, self._log_in, scope="", summary="Who am I? Checks a token", keeps="nothing"),
            Action(
                "auth.ticket", Ticket, self._ticket, scope="", summary="A link to log in with, once", keeps="nothing"
            ),
            Action("auth.logout", Logout, self._log_out, scope="", summary="End this session", keeps="nothing"),
        )

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for path in _FILES:
            router.add_get(path, self._page)
        router.add_post(PAGE, self._exchange)

    async def _log_in(self, call: Call, request: Login) -> LoginReply:
        """On a socket that is logged in already: it stays whose it is."""
        principal = await self._guard.authenticate(request.token, "")
        if principal.id != call.principal.id:
            raise Conflict("This socket is somebody else's; open another one")
        return logged_in(principal)

    def _ticket(self, call: Call, _request: Ticket) -> TicketReply:
        ticket = self._logins.ticket(call.principal)
        expires_at = now() + timedelta(seconds=self._logins.ticket_lifetime_s)
        origin = self._origin()
        return TicketReply(
            ticket=ticket, expires_at=expires_at, url=None if origin is None else f"{origin}{PAGE}#{ticket}"
        )

    async def _log_out(self, call: Call, _request: Logout) -> LogoutReply:
        # First, since the socket may not live to hear an answer that waits; and also where nothing can be written.
        row = take_owed()
        if row is not None:
            try:
                await self._audit.write(row)
            except KandevError:
                self._audit.count(row)
        revoked = await self._logins.revoke(call.principal)
        if revoked:
            self._revoked()
        return LogoutReply(revoked=revoked)

    async def _page(self, request: web.Request) -> web.Response:
        response = web.Response(body=self._pages[request.path], content_type=_FILES[request.path], charset="utf-8")
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        return response

    async def _exchange(self, request: web.Request) -> web.Response:
        if not self._guard.from_own_page(request):
            return refusal(403, "FORBIDDEN", "Only the page of a log-in link may ask this")
        if request.content_type != "application/json":
            return refusal(415, "BAD_REQUEST", "The body must be application/json")
        if request.content_length is None or request.content_length > BODY_LIMIT_BYTES:
            return refusal(413, "PAYLOAD_TOO_LARGE", f"The body must say its length, at most {BODY_LIMIT_BYTES} bytes")
        try:
            ticket = msgspec.json.decode(await request.read(), type=_Exchange).ticket
        except ValueError as error:
            raise ValidationFailed("ticket", f"The body must be {{ticket}}: {error}") from None
        made = self._logins.exchange(ticket) if len(ticket) <= TICKET_LIMIT_CHARS else None
        if made is None:
            await self._guard.failed(address_of(request.remote))
            raise Unauthorized("This link was used already, or is too old. Ask for another one: kandev-host link")
        token, principal = made
        await self._audit.write(
            named(AuditRow(kind="auth", action="auth.exchange"), principal, address_of(request.remote))
        )
        body = {**msgspec.to_builtins(logged_in(principal)), "token": token}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")
