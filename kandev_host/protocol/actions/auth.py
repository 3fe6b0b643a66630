"""auth.login, which the gateway itself serves: on a socket that was opened without credentials it comes first."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from kandev_host.protocol.actions.fields import Request, Response

TOKEN_LIMIT_CHARS = 16 << 10


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
