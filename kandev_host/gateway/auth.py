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
from kandev_host.gateway.dispatch import SocketCall
from kandev_host.gateway.entering import enter, logged_in
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
    Refresh,
    Ticket,
    TicketReply,
)

PAGE = "/login"
_HIDDEN_FORM, _FORM = b'<form id="enter" hidden>', b'<form id="enter">'
_ELSEWHERE = "This socket is somebody else's; open another one"
BODY_LIMIT_BYTES = 4096
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_FILES = {PAGE: "text/html", f"{PAGE}.js": "text/javascript", f"{PAGE}.css": "text/css"}


class _Ticket(msgspec.Struct, forbid_unknown_fields=True):
    ticket: str


class _Password(Login, frozen=True, kw_only=True):
    """Of the two ways of auth.login, the one that is for those without a token."""

    name: str
    password: str


_SHAPES: tuple[type[_Ticket | Login | Refresh], ...] = (_Ticket, _Password, Refresh)


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
            Action(
                "auth.login",
                Login,
                self._log_in,
                scope="",
                summary="Who am I? Checks a token, or a name and its password",
                keeps="nothing",
            ),
            Action("auth.refresh", Refresh, self._refresh, "", "A new token for a refresh token", keeps="nothing"),
            Action(
                "auth.ticket", Ticket, self._ticket, scope="", summary="A link to log in with, once", keeps="nothing"
            ),
            Action("auth.logout", Logout, self._log_out, scope="", summary="End this session", keeps="nothing"),
        )

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for path in _FILES:
            router.add_get(path, self._page)
        if self._logins.issuer is not None:
            self._pages[PAGE] = self._pages[PAGE].replace(_HIDDEN_FORM, _FORM)
        router.add_post(PAGE, self._post)
        self._guard.leave_count("POST", PAGE)

    async def _log_in(self, call: Call, request: Login) -> LoginReply:
        """On a socket that is logged in already: it stays whose it is. Passwords are for those that are not."""
        if isinstance(request.password, str):
            raise Conflict("This socket is logged in already; log in by name on another one, or by POST /login")
        principal, reply = await enter(self._guard, request, _address(call))
        if principal.id != call.principal.id:
            raise Conflict(_ELSEWHERE)
        return reply

    async def _refresh(self, call: Call, request: Refresh) -> LoginReply:
        """The socket goes on by the new token."""
        principal, reply = await enter(self._guard, request, _address(call))
        if principal.id != call.principal.id:
            await self._logins.revoke(principal)
            raise Conflict(_ELSEWHERE)
        if isinstance(call, SocketCall):
            call.renew(principal)
        return reply

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

    async def _post(self, request: web.Request) -> web.Response:
        """Lets in by a ticket (from the host's own page only), a name with its password, or a refresh token."""
        address = address_of(request.remote)
        typed = request.content_type == "application/json"
        fits = request.content_length is not None and request.content_length <= BODY_LIMIT_BYTES
        shown = _shown(await request.read()) if typed and fits else None
        if isinstance(shown, Login):  # never counted with wrong ones before it is known to be one
            return _told((await enter(self._guard, shown, address))[1])
        self._guard.count(address)
        if not typed:
            return refusal(415, "BAD_REQUEST", "The body must be application/json")
        if not fits:
            return refusal(413, "PAYLOAD_TOO_LARGE", f"The body must say its length, at most {BODY_LIMIT_BYTES} bytes")
        if shown is None:
            raise ValidationFailed("body", "The body must be {ticket}, {name, password} or {refresh_token}")
        if isinstance(shown, Refresh):
            return _told((await enter(self._guard, shown, address))[1])
        return await self._exchange(request, shown.ticket, address)

    async def _exchange(self, request: web.Request, ticket: str, address: str) -> web.Response:
        if not self._guard.from_own_page(request):
            return refusal(403, "FORBIDDEN", "Only the page of a log-in link may ask this")
        made = self._logins.exchange(ticket) if len(ticket) <= TICKET_LIMIT_CHARS else None
        if made is None:
            await self._guard.failed(address)
            raise Unauthorized("This link was used already, or is too old. Ask for another one: kandev-host link")
        token, principal = made
        await self._audit.write(named(AuditRow(kind="auth", action="auth.exchange"), principal, address))
        return _told(msgspec.structs.replace(logged_in(principal), token=token))


def _address(call: Call) -> str:
    """Where it comes from: what is shown on an open socket counts there as well."""
    return call.address if isinstance(call, SocketCall) else ""


def _shown(body: bytes) -> _Ticket | Login | Refresh | None:
    for shape in _SHAPES:
        try:
            return msgspec.json.decode(body, type=shape)
        except (ValueError, RecursionError):
            continue
    return None


def _told(reply: LoginReply) -> web.Response:
    return web.Response(body=msgspec.json.encode(reply), content_type="application/json")
