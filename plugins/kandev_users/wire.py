"""What `user.*` and `key.*` are asked, and what they answer (docs/users.md)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from kandev_host import Role
from kandev_users.rows import Key, User

# A name is no id: what both are looked up by must be one of them. Alone, $ would let a newline through.
Name = Annotated[str, Meta(pattern=r"^(?![0-9a-fA-F]{8}-)[A-Za-z0-9][A-Za-z0-9._@-]*(?!\n)$", max_length=64)]
Who = Annotated[str, Meta(min_length=1, max_length=64)]
Password = Annotated[str, Meta(max_length=1024)]
KeyName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\S")]
Scope = Annotated[str, Meta(pattern=r"^(\*|[a-z_]{1,40}:[a-z_]{1,40})$")]
Limit = Annotated[int, Meta(ge=1, le=500)]
Cursor = Annotated[str, Meta(max_length=128)]


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all requests."""


class UserInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A user, without what is secret."""

    id: str
    name: str
    role: Role
    disabled: bool
    has_password: bool
    created_at: datetime
    updated_at: datetime


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without the key. `scopes` is what it may now: never more than its owner. `last_used_at` is to the hour."""

    id: str
    owner_id: str
    owner: str
    name: str
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class UserList(Asked, frozen=True, kw_only=True):
    """By name."""

    limit: Limit = 100
    cursor: Cursor | None = None


class UserCreate(Asked, frozen=True, kw_only=True):
    """Without a password only another issuer's token lets them in."""

    name: Name
    role: Role = "member"
    password: Password | None = None


class UserUpdate(Asked, frozen=True, kw_only=True):
    """Ends all that the user logged in with. `user` is an id or a name."""

    user: Who
    role: Role | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    password: Password | UnsetType = UNSET


class UserPassword(Asked, frozen=True, kw_only=True):
    """One's own. Ends all that one logged in with, this too: log in again."""

    current_password: Password
    password: Password


class UserDelete(Asked, frozen=True, kw_only=True):
    """With all keys. What the user made stays."""

    user: Who


class KeyList(Asked, frozen=True, kw_only=True):
    """One's own; those of another `user`, or of `everybody`, with users:read."""

    user: Who | UnsetType = UNSET
    everybody: bool = False
    limit: Limit = 100
    cursor: Cursor | None = None


class KeyCreate(Asked, frozen=True, kw_only=True):
    """For oneself; for another `user` with users:write. Without `scopes` it may all that its owner may."""

    name: KeyName
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=64)] = msgspec.field(default_factory=lambda: ["*"])
    expires_in_s: Annotated[float, Meta(gt=0, le=10 * 366 * 86_400)] | None = None
    user: Who | UnsetType = UNSET


class KeyRevoke(Asked, frozen=True, kw_only=True):
    """One's own; of others with users:write."""

    key_id: Who


def told_user(user: User) -> UserInfo:
    """A user, as clients see it."""
    return UserInfo(
        id=user.id,
        name=user.name,
        role=user.role,
        disabled=user.disabled,
        has_password=user.password_hash is not None,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )


def told_key(key: Key, owner: str, scopes: frozenset[str]) -> KeyInfo:
    """A key, as clients see it."""
    return KeyInfo(
        id=key.id,
        owner_id=key.owner_id,
        owner=owner,
        name=key.name,
        scopes=sorted(scopes),
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        created_at=key.created_at,
    )
