"""auth.*, which the gateway itself serves: on a socket that was opened without credentials auth.login comes first."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from kandev_host.protocol.actions.fields import Request, Response

TOKEN_LIMIT_CHARS = 16 << 10
TICKET_LIMIT_CHARS = 128


class Login(Request, frozen=True, kw_only=True):
    token: Annotated[str, Meta(max_length=TOKEN_LIMIT_CHARS)]


class PrincipalInfo(Response, frozen=True, kw_only=True):
    """Who acts."""

    id: str
    kind: Literal["user", "agent", "service", "host"]
    name: str


class LoginReply(Response, frozen=True, kw_only=True):
    """`expires_at` is null for credentials that do not expire."""

    principal: PrincipalInfo
    expires_at: datetime | None = None


class Ticket(Request, frozen=True, kw_only=True):
    """Of users only, and not of a session: what ends cannot prolong itself."""


class TicketReply(Response, frozen=True, kw_only=True):
    """`url` is opened in a browser, once; null when browsers cannot reach the host, as on a Unix socket."""

    ticket: str
    expires_at: datetime
    url: str | None


class Logout(Request, frozen=True, kw_only=True):
    """Of a session; other credentials end in ways of their own, the local token by `kandev-host token --rotate`."""


class LogoutReply(Response, frozen=True, kw_only=True):
    """Once `revoked`, all sockets of the session are closed with 4401, this one too; else nothing has ended."""

    revoked: bool
