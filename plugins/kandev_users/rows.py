"""What is kept of users: the rows of users.db, each a table with the same columns."""

from __future__ import annotations

from datetime import datetime

import msgspec

from kandev_host import Role
from kandev_host.models import now

USERS_LIMIT = 10_000
KEYS_LIMIT = 100
LOGINS_LIMIT = 32
REVOKED_LIMIT = 100_000


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may log in. One without a hash has no password: another issuer vouches for them."""

    id: str
    name: str
    role: Role
    password_hash: str | None = None
    disabled: bool = False
    created_at: datetime = msgspec.field(default_factory=now)
    updated_at: datetime = msgspec.field(default_factory=now)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. `scopes` are separated by spaces; `*` stands for all that its owner may."""

    id: str
    digest: bytes
    owner_id: str
    name: str
    scopes: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    created_at: datetime = msgspec.field(default_factory=now)


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """What one log-in got. Its refresh tokens share the part that `family` is of; `digest` is of the one that is good.

    Access tokens name the `id`, which is no secret: they are good while the row is there.
    """

    id: str
    user_id: str
    family: bytes
    digest: bytes
    expires_at: datetime
    created_at: datetime = msgspec.field(default_factory=now)


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """A token of another issuer that was logged out; kept until it would have expired."""

    id: str
    expires_at: datetime


Row = User | Key | Login | Revoked
TABLES: dict[type[Row], str] = {User: "users", Key: "keys", Login: "logins", Revoked: "revoked"}
