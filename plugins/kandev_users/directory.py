"""Who there is: users, keys and log-ins, all in memory, since whether a credential holds must be known without a wait.

Every change is decided on what is there, written, and only then seen; one after the other. What takes something away is
seen also where it cannot be written, as on a full disk, and goes into the next change that can be.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec

from kandev_host import ROLES, Role, scopes_of
from kandev_host.errors import Conflict, KandevError, NotFound
from kandev_host.models import LOCAL_USER_ID, new_id, now
from kandev_users.database import Database
from kandev_users.rows import KEYS_LIMIT, LOGINS_LIMIT, REVOKED_LIMIT, USERS_LIMIT, Key, Login, Revoked, Row, User

T = TypeVar("T")
TOKEN_BYTES = 32
FAMILY_BYTES = 16
PREFIX = "kd_"
USED_AGAIN_S = 3600.0
_ALL = frozenset({"*"})
_RANK: dict[str, int] = {role: rank for rank, role in enumerate(ROLES)}


class Change(msgspec.Struct, frozen=True):
    """What is to be kept, and what removed. What only `ends` something holds at once, written or not."""

    puts: tuple[Row, ...] = ()
    gone: tuple[Row, ...] = ()
    ends: bool = False


class Directory:
    """`local` says whether the local token counts: then it is an administrator too, who may have keys."""

    def __init__(self, database: Database, *, local: bool) -> None:
        self._database = database
        self._local = local
        self._lock = anyio.Lock()
        self._users = {user.id: user for user in database.rows(User)}
        self._names = {user.name.lower(): user.id for user in self._users.values()}
        self._keys = {key.id: key for key in database.rows(Key)}
        self._by_digest = {key.digest: key.id for key in self._keys.values()}
        self._logins = {login.id: login for login in database.rows(Login)}
        self._families = {login.family: login.id for login in self._logins.values()}
        self._revoked = {each.id: each for each in database.rows(Revoked)}

    # Users.

    @property
    def users(self) -> list[User]:
        """Everybody, by name."""
        return sorted(self._users.values(), key=lambda user: user.name.lower())

    def user(self, id: str) -> User | None:
        """Who may log in now; None for the disabled too."""
        found = self._users.get(id)
        return None if found is None or found.disabled else found

    def called(self, name: str) -> User | None:
        """By name, the disabled too."""
        return self._users.get(self._names.get(name.lower(), ""))

    def find(self, name_or_id: str) -> User:
        """Raises `NotFound`."""
        found = self._users.get(name_or_id) or self.called(name_or_id)
        if found is None:
            raise NotFound("user", name_or_id)
        return found

    async def add(self, name: str, role: Role, password_hash: str | None) -> User:
        """Raises `Conflict` for a name that is taken."""
        user = User(id=new_id(), name=name, role=role, password_hash=password_hash)

        def decide() -> Change:
            if self.called(name) is not None:
                raise Conflict(f"There is a user {name!r} already", state="name in use")
            if len(self._users) >= USERS_LIMIT:
                raise Conflict(f"There are {USERS_LIMIT} users already: remove one", state="full")
            return Change((user,))

        await self._change(decide)
        return user

    async def change(
        self,
        id: str,
        *,
        role: Role | None = None,
        disabled: bool | None = None,
        password_hash: str | None = None,
        hash_was: str | None = None,
    ) -> User:
        """Ends all that its log-ins got. With `hash_was`, raises `Conflict` if the password has changed meanwhile."""

        def decide() -> Change:
            was = self.find(id)
            if hash_was is not None and was.password_hash != hash_was:
                raise Conflict("The password was changed meanwhile", state="changed")
            user = msgspec.structs.replace(
                was,
                role=role or was.role,
                disabled=was.disabled if disabled is None else disabled,
                password_hash=password_hash or was.password_hash,
                updated_at=now(),
            )
            if user.disabled or user.role != "admin":
                self._check_last(was)
            gives = disabled is False or (role is not None and _RANK[role] > _RANK[was.role])
            return Change((user,), tuple(self._logins_of(id)), ends=not gives)

        await self._change(decide)
        return self._users[id]

    async def remove(self, id: str) -> User:
        """With its keys and log-ins."""
        user = self.find(id)

        def decide() -> Change:
            found = self.find(id)
            self._check_last(found)
            return Change(gone=(found, *self.keys_of(id), *self._logins_of(id)), ends=True)

        await self._change(decide)
        return user

    def _check_last(self, user: User) -> None:
        """Somebody must be left who can let others in."""
        admins = [each for each in self._users.values() if each.role == "admin" and not each.disabled]
        if not self._local and admins == [user]:
            raise Conflict(f"{user.name} is the last administrator, and the local token is off", state="last admin")

    # Keys.

    def scopes(self, owner_id: str) -> frozenset[str] | None:
        """What this user may do now; None for one that may not be here."""
        if owner_id == LOCAL_USER_ID:
            return _ALL if self._local else None
        user = self.user(owner_id)
        return None if user is None else scopes_of(user.role)

    def scopes_of_key(self, key: Key) -> frozenset[str] | None:
        """Never more than its owner may now."""
        owners = self.scopes(key.owner_id)
        wanted = frozenset(key.scopes.split())
        if owners is None or "*" in wanted:
            return owners
        return wanted if "*" in owners else wanted & owners

    def key(self, id: str) -> Key | None:
        """One that has not expired."""
        found = self._keys.get(id)
        return None if found is None or (found.expires_at is not None and found.expires_at <= now()) else found

    def key_of(self, token: str) -> Key | None:
        """Whoever guesses knows no digests, so looking one up tells nothing about the others."""
        return self.key(self._by_digest.get(digest_of(token), ""))

    def keys_of(self, owner_id: str | None) -> list[Key]:
        """The oldest first; of everybody for None. Expired ones too, until they are removed."""
        return [key for key in self._keys.values() if owner_id in {None, key.owner_id}]

    async def add_key(
        self, owner_id: str, name: str, scopes: Iterable[str], expires_at: datetime | None
    ) -> tuple[Key, str]:
        """The key itself is told this once, and kept nowhere."""
        token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        key = Key(
            id=new_id(),
            digest=digest_of(token),
            owner_id=owner_id,
            name=name,
            scopes=" ".join(sorted(set(scopes))),
            expires_at=expires_at,
        )

        def decide() -> Change:
            if self.scopes(owner_id) is None:
                raise NotFound("user", owner_id)
            others = self.keys_of(owner_id)
            if len(others) >= KEYS_LIMIT:
                raise Conflict(f"There are {KEYS_LIMIT} keys of this user already: revoke one", state="full")
            return Change((key,))

        await self._change(decide)
        return key, token

    async def remove_key(self, id: str) -> None:
        """Revoked: it opens nothing any more. Raises `NotFound`."""

        def decide() -> Change:
            if id not in self._keys:
                raise NotFound("key", id)
            return Change(gone=(self._keys[id],), ends=True)

        await self._change(decide)

    async def used(self, key: Key) -> None:
        """Remember when, to the hour: what is written at each use would wear the disk out."""

        def decide() -> Change:
            found, hour = self._keys.get(key.id), now().replace(minute=0, second=0, microsecond=0)
            if found is None or (found.last_used_at is not None and found.last_used_at >= hour):
                return Change()
            return Change((msgspec.structs.replace(found, last_used_at=hour),))

        if key.last_used_at is None or (now() - key.last_used_at).total_seconds() >= USED_AGAIN_S:
            await self._change(decide)

    # Log-ins.

    def login(self, id: str) -> Login | None:
        """While it is good: not logged out, and not over."""
        found = self._logins.get(id)
        return None if found is None or found.expires_at <= now() else found

    async def log_in(self, user: User, lifetime_s: float) -> tuple[Login, str] | None:
        """A log-in and its first refresh token; None when the user has been changed meanwhile."""
        family = secrets.token_urlsafe(FAMILY_BYTES)
        token = _refresh_token(family)
        login = Login(
            id=new_id(),
            user_id=user.id,
            family=digest_of(family),
            digest=digest_of(token),
            expires_at=now() + timedelta(seconds=lifetime_s),
        )

        def decide() -> Change:
            if self._users.get(user.id) != user:
                return Change()
            others = self._logins_of(user.id)
            over = [each for each in others if each.expires_at <= now()]
            left = [each for each in others if each.expires_at > now()]
            return Change((login,), (*over, *left[: max(0, len(left) + 1 - LOGINS_LIMIT)]))

        change = await self._change(decide)
        return (login, token) if change.puts else None

    async def refresh(self, token: str) -> tuple[Login, str] | Login | None:
        """The log-in and its next refresh token.

        One that was used before ends the log-in, as somebody else has it: then the log-in alone.
        """
        family = token.removeprefix(PREFIX).partition(".")[0]
        following = _refresh_token(family)
        login: Login | None = None
        ended: Login | None = None

        def decide() -> Change:
            nonlocal login, ended
            found = self.login(self._families.get(digest_of(family), ""))
            if found is None:
                return Change()
            # Only refresh tokens of this log-in have its family in them: one that is not the last is an old one.
            if not secrets.compare_digest(found.digest, digest_of(token)):
                ended = found
                return Change(gone=(found,), ends=True)
            login = msgspec.structs.replace(found, digest=digest_of(following))
            return Change((login,))

        await self._change(decide)
        return ended if login is None else (login, following)

    async def log_out(self, id: str) -> bool:
        """Ends the log-in with all its tokens."""

        def decide() -> Change:
            found = self._logins.get(id)
            return Change(gone=() if found is None else (found,), ends=True)

        return bool((await self._change(decide)).gone)

    def _logins_of(self, user_id: str) -> list[Login]:
        return [login for login in self._logins.values() if login.user_id == user_id]

    # Tokens of another issuer.

    def is_revoked(self, id: str) -> bool:
        return id in self._revoked

    async def revoke(self, id: str, expires_at: datetime) -> None:
        """Raises `Conflict` when there are too many: nobody may take it for revoked."""

        def decide() -> Change:
            over = tuple(each for each in self._revoked.values() if each.expires_at <= now())
            if len(self._revoked) - len(over) >= REVOKED_LIMIT:
                raise Conflict("Too many tokens are revoked: this one ends when it expires", state="full")
            return Change((Revoked(id=id, expires_at=expires_at),), over, ends=True)

        await self._change(decide)

    # How a change is made.

    async def settle(self) -> None:
        """Write what could not be written before, if there is such a thing and it can be now."""
        await self._change(Change)

    async def _change(self, decide: Callable[[], Change]) -> Change:
        """Once begun it is carried to its end, also when the caller is cancelled. Raises what `decide` does."""
        failure: KandevError | None = None
        with anyio.CancelScope(shield=True):
            async with self._lock:
                if self._database.holding:
                    with suppress(KandevError):
                        await anyio.to_thread.run_sync(self._database.write, (), ())
                change = decide()
                if change.puts or change.gone:
                    write = partial(self._database.write, change.puts, change.gone, ends=change.ends)
                    try:
                        await anyio.to_thread.run_sync(write)
                    except KandevError as error:
                        if not change.ends:
                            raise
                        failure = error
                for row in change.gone:
                    self._forget(row)
                for row in change.puts:
                    self._see(row)
        if failure is not None:
            raise failure
        return change

    def _see(self, row: Row) -> None:
        match row:
            case User():
                self._users[row.id] = row
                self._names[row.name.lower()] = row.id
            case Key():
                self._keys[row.id] = row
                self._by_digest[row.digest] = row.id
            case Login():
                self._logins[row.id] = row
                self._families[row.family] = row.id
            case Revoked():
                self._revoked[row.id] = row

    def _forget(self, row: Row) -> None:
        match row:
            case User():
                self._users.pop(row.id, None)
                self._names.pop(row.name.lower(), None)
            case Key():
                self._keys.pop(row.id, None)
                self._by_digest.pop(row.digest, None)
            case Login():
                self._logins.pop(row.id, None)
                self._families.pop(row.family, None)
            case Revoked():
                self._revoked.pop(row.id, None)


def digest_of(secret: str) -> bytes:
    """What is kept of a secret of 128 bits or more: that needs no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _refresh_token(family: str) -> str:
    return f"{PREFIX}{family}.{secrets.token_urlsafe(TOKEN_BYTES)}"
