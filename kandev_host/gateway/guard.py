"""Before every route, the WebSocket upgrade and unknown paths included: which Host, which Origin, whose credentials.

A web page can reach a loopback port, and a rebound name makes its Origin equal its Host. So both are held to lists of
names; comparing one with the other proves nothing, and no forwarding header is believed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, runtime_checkable

import anyio
import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from kandev_host.errors import KandevError, Unauthorized
from kandev_host.interfaces import Authenticator, Principal
from kandev_host.models import new_id

logger = logging.getLogger(__name__)

SUBPROTOCOL = "kandev.v1"
BEARER_PROTOCOL = "bearer."
FAILED_LOGIN_DELAY_S = 0.2
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
HTTP_ANSWERS = (KandevError, web.HTTPException)  # what the handler of a route may raise
PRINCIPAL = web.RequestKey("principal", Principal)
HEADERS = {
    hdrs.SERVER: "kandev-host",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@runtime_checkable
class Revocable(Protocol):
    """An authenticator whose principals can lose their rights while they are connected."""

    def is_valid(self, principal: Principal) -> bool:
        """May this principal go on? Asked for each request; must be quick."""
        ...


class Guard:
    """Holds requests to the names of this host, and turns their credentials into a principal."""

    def __init__(self, authenticator: Authenticator, origins: Collection[str] = ()) -> None:
        self._authenticator = authenticator
        self._revocable = authenticator if isinstance(authenticator, Revocable) else None
        self._foreign_origins = frozenset(origins)
        self._hosts: frozenset[str] = frozenset()
        self._origins: frozenset[str] = self._foreign_origins

    def listen_on(self, host: str, port: int) -> None:
        """The address is known only once the socket is bound."""
        bound = f"[{host}]" if ":" in host else host.lower()
        names = {f"{name}:{port}" for name in (*OWN_NAMES, bound)}
        if port == 80:
            names.update((*OWN_NAMES, bound))
        self._hosts = frozenset(names)
        self._origins = self._foreign_origins | {f"http://{name}" for name in names}

    def still_valid(self, principal: Principal) -> bool:
        """Has nobody revoked it since? Asked for each request."""
        return self._revocable is None or self._revocable.is_valid(principal)

    async def authenticate(self, token: str) -> Principal:
        """Raises `Unauthorized`, after a delay that makes guessing slow and delays nobody else."""
        principal = await self._authenticator.authenticate(token)
        if principal is None or not self.still_valid(principal):
            await anyio.sleep(FAILED_LOGIN_DELAY_S)
            raise Unauthorized("The token is wrong")
        return principal

    async def credentials(self, request: web.Request) -> Principal | None:
        """The principal of the request's credentials, None when it has none. Raises `Unauthorized` for bad ones."""
        if "token" in request.query:
            raise Unauthorized(
                "A token in a URL ends up in logs and histories, so it is refused: send it as "
                "'Authorization: Bearer …', as the subprotocol 'bearer.…', or with auth.login"
            )
        tokens = _tokens(request)
        if not tokens:
            return None
        if len(tokens) > 1:
            raise Unauthorized("There must be one credential, not several")
        return await self.authenticate(tokens[0])

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall(hdrs.HOST, [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts or request.host.lower() not in self._hosts:
            return refusal(421, "BAD_REQUEST", "This host answers to its own address only; see gateway in the docs")
        origins = request.headers.getall(hdrs.ORIGIN, [])
        if any(origin not in self._origins for origin in origins):
            return refusal(403, "FORBIDDEN", "This origin may not connect; gateway.origins lists those that may")
        try:
            return await handler(request)
        except web.HTTPException as error:
            if request.match_info.http_exception is None:
                raise
            return refusal(error.status, "NOT_FOUND" if error.status == 404 else "BAD_REQUEST", error.reason, error)
        except Unauthorized as error:
            response = refusal(401, error.code, error.message)
            response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            return response
        except KandevError as error:
            return refusal(503, error.code, error.message)
        except Exception:
            correlation_id = new_id()
            logger.exception("%s %s failed, correlation id %s", request.method, request.path, correlation_id)
            return refusal(500, "INTERNAL_ERROR", f"Something unforeseen went wrong (correlation id {correlation_id})")

    def protected(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The same handler, for requests with valid credentials only; `request[PRINCIPAL]` says whose."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            principal = await self.credentials(request)
            if principal is None:
                raise Unauthorized("This needs the header 'Authorization: Bearer …'")
            request[PRINCIPAL] = principal
            return await handler(request)

        return guarded


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """On every response, also the upgrade's."""
    for name, value in HEADERS.items():
        response.headers[name] = value


def refusal(status: int, code: str, message: str, cause: web.HTTPException | None = None) -> web.Response:
    """An HTTP answer with the error payload of the protocol."""
    body = msgspec.json.encode({"code": code, "message": message, "details": {}})
    response = web.Response(status=status, body=body, content_type="application/json")
    if cause is not None and hdrs.ALLOW in cause.headers:
        response.headers[hdrs.ALLOW] = cause.headers[hdrs.ALLOW]
    return response


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
