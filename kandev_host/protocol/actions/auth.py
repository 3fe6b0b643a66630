"""auth.*, which the gateway itself serves: on a socket that was opened without credentials auth.login comes first."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta

from kandev_host.protocol.actions.fields import Request, Response, Unset

TOKEN_LIMIT_CHARS = 16 << 10
TICKET_LIMIT_CHARS = 128
NAME_LIMIT_CHARS = 255
REFRESH_LIMIT_CHARS = 2048
PASSWORD_LIMIT_CHARS = 1024


class Login(Request, frozen=True, kw_only=True):
    """Either a `token`, or a `name` with its `password`, if the authenticator of the host knows such."""

    token: Annotated[str, Meta(max_length=TOKEN_LIMIT_CHARS)] | Unset = UNSET
    name: Annotated[str, Meta(max_length=NAME_LIMIT_CHARS)] | Unset = UNSET
    password: Annotated[str, Meta(max_length=PASSWORD_LIMIT_CHARS)] | Unset = UNSET


class PrincipalInfo(Response, frozen=True, kw_only=True):
    """Who acts."""

    id: str
    kind: Literal["user", "agent", "service", "host"]
    name: str


class LoginReply(Response, frozen=True, kw_only=True):
    """`expires_at` is null for credentials that do not expire. Who logs in by name gets a `token`, good until then."""

    principal: PrincipalInfo
    expires_at: datetime | None = None
    token: str | None = None
    refresh_token: str | None = None


class Refresh(Request, frozen=True, kw_only=True):
    """A refresh token is good once. One that was used before ends all that its log-in got: somebody else has it."""

    refresh_token: Annotated[str, Meta(max_length=REFRESH_LIMIT_CHARS)]


class Ticket(Request, frozen=True, kw_only=True):
    """Of users only, and not of a session: what ends cannot prolong itself."""


class TicketReply(Response, frozen=True, kw_only=True):
    """`url` is opened in a browser, once; null when browsers cannot reach the host, as on a Unix socket."""

    ticket: str
    expires_at: datetime
    url: str | None


class Logout(Request, frozen=True, kw_only=True):
    """Of a session or a log-in; others end in ways of their own, the local token by `kandev-host token --rotate`."""


class LogoutReply(Response, frozen=True, kw_only=True):
    """Once `revoked`, all sockets of the session are closed with 4401, this one too; else nothing has ended."""

    revoked: bool
