"""Before every route, the WebSocket upgrade and unknown paths included: which Host, which Origin, whose credentials.

A web page can reach a loopback port, and a rebound name makes its Origin equal its Host. So both are held to lists of
names; comparing one with the other proves nothing, and no forwarding header is believed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import anyio
import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from msgspec.structs import replace

from kandev_host.audit.acting import named, text
from kandev_host.audit.log import Audit, NoAudit
from kandev_host.errors import Forbidden, KandevError, Unauthorized, Unavailable
from kandev_host.gateway.limits import RateLimits, address_of
from kandev_host.gateway.listening import Address, of_this_user
from kandev_host.gateway.logins import Logins
from kandev_host.interfaces import Authenticator, Credentials, Issued, Issuer, Principal, Refused, Route
from kandev_host.models import AuditRow, new_id
from kandev_host.settings import GatewaySettings

logger = logging.getLogger(__name__)
T = TypeVar("T")

SUBPROTOCOL = "kandev.v1"
BEARER_PROTOCOL = "bearer."
FAILED_LOGIN_DELAY_S = 0.2
HTTP_ANSWERS = (KandevError, web.HTTPException)  # what the handler of a route may raise
PRINCIPAL = web.RequestKey("principal", Principal)
HEADERS = {
    hdrs.SERVER: "kandev-host",
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_NONE: frozenset[str] = frozenset()
_STATUS = {"UNAUTHORIZED": 401, "FORBIDDEN": 403, "VALIDATION_ERROR": 400, "BAD_REQUEST": 400, "RATE_LIMITED": 429}


class Guard:
    """Holds requests to the names of this host, and turns their credentials into a principal."""

    def __init__(self, authenticator: Logins, settings: GatewaySettings, audit: Audit | None = None) -> None:
        self._authenticator = authenticator
        self._settings = settings
        self._audit = audit or NoAudit()
        self._foreign_origins = frozenset(settings.origins)
        self._hosts: frozenset[str] = frozenset()
        self._own_origins: frozenset[str] = frozenset()
        self._of_routes: dict[str, Authenticator] = {}
        self._own_count: set[tuple[str, str]] = set()
        self._query_token = settings.query_token
        self._timeout_s = settings.handshake_timeout_s
        factor = settings.principal_rate_factor
        self._of_principals = RateLimits(factor * settings.requests_per_s, factor * settings.request_burst)
        self._of_addresses = RateLimits(settings.address_requests_per_s, settings.address_request_burst)

    def listen_on(self, address: Address) -> None:
        """The address is known only once the socket is bound. Names and rates are those of the settings now."""
        settings = self._settings
        self._foreign_origins = frozenset(settings.origins)
        factor = settings.principal_rate_factor
        self._of_principals.change(factor * settings.requests_per_s, factor * settings.request_burst)
        self._of_addresses.change(settings.address_requests_per_s, settings.address_request_burst)
        self._hosts = address.hosts(settings.hosts)
        self._own_origins = frozenset(f"{address.scheme}://{name}" for name in self._hosts) if address.port else _NONE

    def holds(self, principal: Principal) -> bool:
        """Is it unrevoked and not expired? Asked for each request, and again and again for each socket."""
        try:
            return self._authenticator.holds(principal)
        except Exception:  # a plugin's own fault, of any kind, lets nobody in
            logger.exception("the authenticator failed; it counts as a no")
            return False

    def wait_of(self, principal: Principal) -> float:
        """0 when one more of its requests may pass now, else the seconds to wait; over all its connections."""
        return self._of_principals.admit(principal.id)

    async def authenticate(self, token: str, address: str, path: str = "") -> Principal:
        """Raises `Unauthorized`, after a delay that makes guessing slow and delays nobody else; or `Unavailable`.

        On the `path` of a route that has an authenticator of its own, what that one knows is good enough.
        """
        own, credentials = self._of_routes.get(path), Credentials(token, address)

        async def known() -> Principal | None:
            if own is not None and (found := await own.authenticate(credentials)) is not None and own.holds(found):
                return found
            found = await self._authenticator.authenticate(credentials)
            return found if found is not None and self.holds(found) else None

        principal = await self._asked(known())
        if principal is None:
            await self.failed(address)
            raise Unauthorized("The token is wrong")
        self._entered("auth.login", principal, address)
        return principal

    async def log_in(self, name: str, password: str, address: str) -> Issued:
        """By a password. Raises as `authenticate` does; `Unavailable` too where nobody has one."""
        asking = self._issuer().log_in(name, password, address)
        issued = await self._issued(asking, address, "Name or password is wrong")
        self._entered("auth.login", issued.principal, address)
        return issued

    async def refresh(self, refresh_token: str, address: str) -> Issued:
        """By a refresh token. Raises as `log_in` does."""
        refreshing = self._issuer().refresh(refresh_token, address)
        issued = await self._issued(refreshing, address, "The refresh token is wrong, or was used before: log in")
        self._entered("auth.refresh", issued.principal, address)
        return issued

    def _issuer(self) -> Issuer:
        issuer = self._authenticator.issuer
        if issuer is None:
            fix = 'set [use] authenticator = "users", and start the host anew'
            raise Unavailable("This host knows no names and passwords, only tokens", fix=fix)
        return issuer

    async def _issued(self, asking: Coroutine[Any, Any, Issued | Refused | None], address: str, wrong: str) -> Issued:
        issued = await self._asked(asking)
        if not isinstance(issued, Issued) or not self.holds(issued.principal):
            await self.failed(address, issued if isinstance(issued, Refused) else None)
            raise Unauthorized(wrong)
        return issued

    async def _asked(self, asking: Coroutine[Any, Any, T]) -> T:
        try:
            with anyio.fail_after(self._timeout_s):
                return await asking
        except TimeoutError:
            raise Unavailable("The authenticator does not answer; try again") from None
        except KandevError:
            raise
        except Exception:  # a plugin's own fault, of any kind, lets nobody in
            logger.exception("the authenticator failed")
            raise Unavailable("The authenticator failed; the host's log has it") from None

    def count(self, address: str) -> None:
        """One more request without valid credentials. Raises `RateLimited`."""
        self._of_addresses.check(address)

    def leave_count(self, method: str, path: str) -> None:
        """The route counts those requests itself: a right password that comes in one is not counted."""
        self._own_count.add((method, path))

    async def failed(self, address: str, refused: Refused | None = None) -> None:
        """Hold up whoever showed bad credentials. Raises `RateLimited`; who has the right ones never comes here."""
        details = {} if refused is None else {"user": text(refused.name)}
        row = AuditRow(
            kind="auth", action="auth.login", outcome="failed", actor="unknown", address=address, details=details
        )
        if refused is not None and refused.principal is not None:
            row = named(replace(row, action="auth.refresh", outcome="reused"), refused.principal, address)
        self._audit.count(row)
        self.count(address)
        await anyio.sleep(FAILED_LOGIN_DELAY_S)

    def _entered(self, action: str, principal: Principal, address: str) -> None:
        self._audit.count(named(AuditRow(kind="auth", action=action), principal, address))

    def revoked(self, principal: Principal, address: str) -> None:
        """Note that a socket is closed because its credentials hold no longer."""
        self._audit.count(named(AuditRow(kind="auth", action="auth.revoked"), principal, address))

    def forbidden(self, principal: Principal, address: str, what: str, error: KandevError) -> None:
        """Note that somebody asked for what is not theirs."""
        details = {"action": what, **{name: value for name, value in error.details.items() if name == "scope"}}
        row = AuditRow(kind="access", action="access.refused", outcome=error.code, details=details)
        self._audit.count(named(row, principal, address))

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall(hdrs.HOST, [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts or request.host.lower() not in self._hosts:
            told = "This host answers to its own address only; other names of it are a setting: gateway.hosts"
            return refusal(421, "BAD_REQUEST", told)
        origins = request.headers.getall(hdrs.ORIGIN, [])
        if any(origin not in self._own_origins and origin not in self._foreign_origins for origin in origins):
            return refusal(403, "FORBIDDEN", "This origin may not connect; gateway.origins lists those that may")
        if not of_this_user(request.transport):
            return refusal(403, "FORBIDDEN", "This socket is for the user of the host alone")
        try:
            await self._identify(request)
            return await handler(request)
        except web.HTTPException as error:
            if request.match_info.http_exception is None:
                raise
            return refusal(error.status, "NOT_FOUND" if error.status == 404 else "BAD_REQUEST", error.reason, error)
        except KandevError as error:
            return _answer(error)
        except Exception:
            correlation_id = new_id()
            logger.exception("%s %s failed, correlation id %s", request.method, request.path, correlation_id)
            return refusal(500, "INTERNAL_ERROR", f"Something unforeseen went wrong (correlation id {correlation_id})")

    async def _identify(self, request: web.Request) -> None:
        """Put the principal into the request, if it shows credentials. Raises `Unauthorized` or `RateLimited`."""
        shown = [] if not self._query_token or request.path != "/ws" else request.query.getall("token", [])
        if "token" in request.query and not (shown and all(map(_is_jwt, shown))):
            raise Unauthorized(
                "A token in a URL ends up in logs and histories, so it is refused: send it as "
                "'Authorization: Bearer …', as the subprotocol 'bearer.…', or with auth.login"
            )
        address = address_of(request.remote)
        tokens = [*_tokens(request), *shown]
        if len(tokens) > 1:
            raise Unauthorized("There must be one credential, not several")
        if not tokens:
            if (request.method, request.path) not in self._own_count:
                self.count(address)
            return
        # An address is shared, as loopback is by all programs here: who has credentials is not counted with the others.
        principal = await self.authenticate(tokens[0], address, request.path)
        self._of_principals.check(principal.id)
        request[PRINCIPAL] = principal

    def protected(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The route's handler, for requests with valid credentials only; `request[PRINCIPAL]` says whose."""
        if route.authenticator is not None:
            self._of_routes[route.path] = route.authenticator

        async def guarded(request: web.Request) -> web.StreamResponse:
            principal = request.get(PRINCIPAL)
            if principal is None:
                raise Unauthorized("This needs the header 'Authorization: Bearer …'")
            if principal.kind == "agent":
                raise Forbidden(route.scope, "This is not for agents")
            if not principal.may(route.scope):
                error = Forbidden(route.scope)
                self.forbidden(principal, address_of(request.remote), f"{route.method} {route.path}", error)
                raise error
            response: web.StreamResponse = await route.handler(request)
            return response

        return guarded

    def from_own_page(self, request: web.Request) -> bool:
        """Does a page of this host ask? Browsers name the origin of each POST; behind a proxy that has TLS, its own."""
        origins = request.headers.getall(hdrs.ORIGIN, [])
        if len(origins) != 1:
            return False
        listed = origins[0] in self._foreign_origins and origins[0].partition("://")[2] == request.host
        return listed or origins[0] in self._own_origins


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """On every response, also the upgrade's."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _answer(error: KandevError) -> web.Response:
    response = refusal(_STATUS.get(error.code, 503), error.code, error.message, details=error.details)
    if response.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if "retry_after_s" in error.details:
        response.headers[hdrs.RETRY_AFTER] = str(math.ceil(error.details["retry_after_s"]))
    return response


def refusal(
    status: int,
    code: str,
    message: str,
    cause: web.HTTPException | None = None,
    details: Mapping[str, Any] | None = None,
) -> web.Response:
    """An HTTP answer with the error payload of the protocol."""
    body = msgspec.json.encode({"code": code, "message": message, "details": dict(details or {})})
    response = web.Response(status=status, body=body, content_type="application/json")
    if cause is not None and hdrs.ALLOW in cause.headers:
        response.headers[hdrs.ALLOW] = cause.headers[hdrs.ALLOW]
    return response


def _is_jwt(token: str) -> bool:
    """What ends within the hour; the local token and keys have another form."""
    return token.startswith("eyJ") and token.count(".") == 2


def _tokens(request: web.Request) -> list[str]:
    tokens: list[str] = []
    for value in request.headers.getall(hdrs.AUTHORIZATION, []):
        scheme, _, token = value.partition(" ")
        # Any Authorization header is a claim: one that cannot be used is a bad one, never none.
        tokens.append(token.strip() if scheme.lower() == "bearer" else "")
    for value in request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, []):
        offered = (part.strip() for part in value.split(","))
        tokens.extend(each.removeprefix(BEARER_PROTOCOL) for each in offered if each.startswith(BEARER_PROTOCOL))
    return tokens
