"""`user.*` and `key.*`: who may come in, and what for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, TypeVar

import anyio
from msgspec import UNSET, UnsetType

from kandev_host import Action, Call, Principal, Role, scopes_of
from kandev_host.errors import Conflict, Forbidden, NotFound, Unauthorized, ValidationFailed
from kandev_host.models import LOCAL_USER_ID, now
from kandev_users.authenticator import KEY, Users
from kandev_users.owners import Owners
from kandev_users.rows import Key, User
from kandev_users.wire import (
    KeyCreate,
    KeyInfo,
    KeyList,
    KeyRevoke,
    UserCreate,
    UserDelete,
    UserInfo,
    UserList,
    UserPassword,
    UserUpdate,
    told_key,
    told_user,
)

READ = "users:read"
WRITE = "users:write"
SESSION = "session:"
WRONG_S = 0.2
T = TypeVar("T")


def users_actions(users: Users, owners: Owners, scopes: Callable[[], frozenset[str]]) -> list[Action[Any]]:
    """Those of this authenticator. Requests with passwords, and answers with keys, are kept nowhere.

    `scopes` are all that something here asks for, once the host has begun.
    """
    serve = _Serving(users, owners, scopes)
    return [
        Action("user.list", UserList, serve.users, READ, "Who may log in"),
        Action("user.create", UserCreate, serve.create, WRITE, "A new user", owned=False, keeps="nothing"),
        Action(
            "user.update",
            UserUpdate,
            serve.update,
            WRITE,
            "Change role, password, or disable",
            owned=False,
            keeps="nothing",
        ),
        Action("user.password", UserPassword, serve.password, "", "Change your own password", keeps="nothing"),
        Action("user.delete", UserDelete, serve.delete, WRITE, "Delete a user with all keys", owned=False),
        Action("key.list", KeyList, serve.keys, "host:read", "API keys"),
        Action("key.create", KeyCreate, serve.create_key, "", "A new API key, told this once", keeps="effect"),
        Action("key.revoke", KeyRevoke, serve.revoke_key, "", "Revoke an API key"),
    ]


class _Serving:
    def __init__(self, users: Users, owners: Owners, scopes: Callable[[], frozenset[str]]) -> None:
        self._owners = owners
        self._scopes = scopes
        self._directory = users.directory
        self._passwords = users.passwords

    # Users.

    async def users(self, _call: Call, request: UserList) -> dict[str, Any]:
        found, cursor = _page(self._directory.users, lambda user: user.id, request.limit, request.cursor)
        return {"users": [told_user(user) for user in found], "next_cursor": cursor}

    async def create(self, call: Call, request: UserCreate) -> dict[str, UserInfo]:
        _check_reach(call.principal, request.role)
        if request.name.lower() == "local":
            raise Conflict("The user local is the one of the local token", state="name in use")
        hash = None if request.password is None else await self._passwords.hashed(request.password, request.name)
        user = await self._directory.add(request.name, request.role, hash)
        await self._owners.add(user)
        return {"user": told_user(user)}

    async def update(self, call: Call, request: UserUpdate) -> dict[str, UserInfo]:
        user = self._directory.find(request.user)
        _check_reach(call.principal, user.role, _given(request.role))
        if request.role is UNSET and request.disabled is UNSET and request.password is UNSET:
            raise ValidationFailed("payload", "There is nothing to change: give a role, disabled or a password")
        hash = None
        if isinstance(request.password, str):
            hash = await self._passwords.hashed(request.password, user.name)
        changed = await self._directory.change(
            user.id, role=_given(request.role), disabled=_given(request.disabled), password_hash=hash
        )
        return {"user": told_user(changed)}

    async def password(self, call: Call, request: UserPassword) -> dict[str, UserInfo]:
        if self._is_narrow(call.principal):
            raise Conflict("A narrow key changes no password: log in with it", state="logged in by a key")
        user = self._directory.user(call.principal.id)
        if user is None or user.password_hash is None:
            raise Conflict("You have no password here", state="no password")
        if not await self._passwords.check(request.current_password, user.password_hash, user.id):
            await anyio.sleep(WRONG_S)
            raise Unauthorized("The current password is wrong")
        hash = await self._passwords.hashed(request.password, user.name)
        changed = await self._directory.change(user.id, password_hash=hash, hash_was=user.password_hash)
        return {"user": told_user(changed)}

    async def delete(self, call: Call, request: UserDelete) -> dict[str, Any]:
        user = self._directory.find(request.user)
        _check_reach(call.principal, user.role)
        keys = len(self._directory.keys_of(user.id))
        return {"user": told_user(await self._directory.remove(user.id)), "removed": {"keys": keys}}

    # Keys.

    async def keys(self, call: Call, request: KeyList) -> dict[str, Any]:
        owner = call.principal.id if request.user is UNSET else self._id_of(call.principal, request.user, READ)
        if request.everybody and not call.principal.may(READ):
            raise Forbidden(READ)
        keys = self._directory.keys_of(None if request.everybody else owner)
        found, cursor = _page(keys, lambda key: key.id, request.limit, request.cursor)
        return {"keys": [self._told(key) for key in found], "next_cursor": cursor}

    async def create_key(self, call: Call, request: KeyCreate) -> dict[str, Any]:
        caller = call.principal
        _check_maker(caller)
        _check_known(request.scopes, self._scopes())
        owner_id = self._id_of(caller, request.user, WRITE)
        owners = self._directory.scopes(owner_id)
        if owners is None:
            raise NotFound("user", owner_id)
        for scope in owners if "*" in request.scopes else request.scopes:
            for holder in (owners, caller.scopes):
                if "*" not in holder and scope not in holder:
                    raise Forbidden(scope)
        ends = None if request.expires_in_s is None else now() + timedelta(seconds=request.expires_in_s)
        if caller.credential.startswith((KEY, SESSION)) and caller.expires_at is not None:
            ends = caller.expires_at if ends is None else min(ends, caller.expires_at)
        key, token = await self._directory.add_key(owner_id, request.name, request.scopes, ends)
        return {"key": self._told(key), "token": token}

    async def revoke_key(self, call: Call, request: KeyRevoke) -> dict[str, KeyInfo]:
        await self._directory.settle()  # of whoever asks again, since there was no room
        key = next((each for each in self._directory.keys_of(None) if each.id == request.key_id), None)
        if key is None or (key.owner_id != call.principal.id and not call.principal.may(WRITE)):
            raise NotFound("key", request.key_id)
        itself = call.principal.credential == KEY + key.id
        if not itself and self._is_narrow(call.principal) and not call.principal.may(WRITE):
            raise Conflict("A narrow key revokes itself alone: log in with your password", state="logged in by a key")
        told = self._told(key)
        await self._directory.remove_key(key.id)
        return {"key": told}

    def _is_narrow(self, caller: Principal) -> bool:
        """May it less than its owner?"""
        return self._directory.scopes(caller.id) != caller.scopes

    def _id_of(self, caller: Principal, user: str | UnsetType, scope: str) -> str:
        """Of whom they speak. Raises `Forbidden` where it is not for them to."""
        if not isinstance(user, str) or user in {caller.id, caller.name}:
            return caller.id
        if not caller.may(scope):
            raise Forbidden(scope)
        return LOCAL_USER_ID if user in {LOCAL_USER_ID, "local"} else self._directory.find(user).id

    def _told(self, key: Key) -> KeyInfo:
        owner: User | None = next((each for each in self._directory.users if each.id == key.owner_id), None)
        name = "local" if owner is None else owner.name
        return told_key(key, name, self._directory.scopes_of_key(key) or frozenset())


def _check_maker(caller: Principal) -> None:
    """What ends must not prolong itself: a key, or a session that may come from one, makes no keys.

    But for who may make users: that key's keys end with it at the latest.
    """
    if caller.kind != "user":
        raise Forbidden(WRITE)
    if caller.credential.startswith((KEY, SESSION)) and not caller.may(WRITE):
        raise Conflict("A key makes no keys: log in with your password", state="logged in by a key")


def _check_known(scopes: Sequence[str], known: frozenset[str]) -> None:
    """Raises `ValidationFailed` for a scope that nothing asks for: its key would open nothing, and not say why."""
    for scope in scopes:
        if scope != "*" and scope not in known:
            near = get_close_matches(scope, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
            raise ValidationFailed("scopes", f"Nothing here asks for {scope}; {hint}")


def _check_reach(caller: Principal, *roles: Role | None) -> None:
    """Users with these roles are only for those who may as much: a narrow key makes no administrator, nor becomes one
    by a password that it sets."""
    for scope in sorted({scope for role in roles if role is not None for scope in scopes_of(role)}):
        if not caller.may(scope):
            raise Forbidden(scope)


def _page(
    rows: Sequence[T], id_of: Callable[[T], str], limit: int, cursor: str | None
) -> tuple[Sequence[T], str | None]:
    """So many after the one that the cursor names. Raises `ValidationFailed` for one that is there no more."""
    start = 0
    if cursor is not None:
        at = next((number for number, row in enumerate(rows) if id_of(row) == cursor), None)
        if at is None:
            raise ValidationFailed("cursor", "This cursor is no more: begin anew")
        start = at + 1
    found = rows[start : start + limit]
    more = start + limit < len(rows)
    return found, id_of(found[-1]) if more else None


def _given(value: Any) -> Any:
    return None if value is UNSET else value
