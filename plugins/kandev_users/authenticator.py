"""From what somebody shows to a principal: an access token, an API key, the local token; or a name and its password."""

from __future__ import annotations

import ipaddress
import logging
from datetime import datetime

from kandev_host import Authenticator, Credentials, Issued, Principal, Refused
from kandev_host.errors import KandevError
from kandev_host.models import now
from kandev_users.directory import PREFIX, Directory
from kandev_users.passwords import Passwords
from kandev_users.rows import Login, User
from kandev_users.tokens import Claims, Tokens

logger = logging.getLogger(__name__)

LOGIN = "login:"
KEY = "key:"
ISSUER = "issuer:"


class Users:
    """The authenticator "users", which also issues tokens.

    What a principal may do is looked up anew each time: neither a token nor a key knows a role.
    """

    remote = True

    def __init__(
        self,
        directory: Directory,
        tokens: Tokens,
        passwords: Passwords,
        *,
        login_lifetime_s: float,
        local: Authenticator | None,
    ) -> None:
        """`local` knows the local token; None where that is off."""
        self.directory = directory
        self.passwords = passwords
        self._tokens = tokens
        self._login_lifetime_s = login_lifetime_s
        self._local = local

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        """Whose it is, or None."""
        token = credentials.token
        if token.startswith(PREFIX):
            return await self._of_key(token)
        if token.count(".") == 2:
            claims = self._tokens.read(token)
            return None if claims is None else self._of_claims(claims)
        if self._local is not None and is_here(credentials.address):
            return await self._local.authenticate(credentials)
        return None

    def holds(self, principal: Principal) -> bool:
        """From memory."""
        credential = principal.credential
        if credential.startswith(LOGIN):
            if self.directory.login(credential.removeprefix(LOGIN)) is None:
                return False
        elif credential.startswith(KEY):
            key = self.directory.key(credential.removeprefix(KEY))
            return key is not None and self.directory.scopes_of_key(key) == principal.scopes
        elif credential.startswith(ISSUER):
            if self.directory.is_revoked(credential.removeprefix(ISSUER)):
                return False
        else:
            return self._local is not None and self._local.holds(principal)
        return self.directory.scopes(principal.id) == principal.scopes

    async def revoke(self, principal: Principal) -> bool:
        """Ends a log-in with all its tokens; a key is revoked by `key.revoke`."""
        credential = principal.credential
        if credential.startswith(LOGIN):
            return await self.directory.log_out(credential.removeprefix(LOGIN))
        if credential.startswith(ISSUER) and principal.expires_at is not None:
            await self.directory.revoke(credential.removeprefix(ISSUER), principal.expires_at)
            return True
        return False

    async def log_in(self, name: str, password: str, address: str) -> Issued | Refused | None:
        """As long for a name that nobody has, or that is disabled, as for a wrong password."""
        user = self.directory.called(name)
        right = await self.passwords.check(password, None if user is None else user.password_hash, address)
        if user is None:
            return None
        if not right or user.disabled:
            return Refused(user.name)
        made = await self.directory.log_in(user, self._login_lifetime_s)
        return Refused(user.name) if made is None else self._issued(user, *made)

    async def refresh(self, refresh_token: str, address: str) -> Issued | Refused | None:
        """By the last refresh token of a log-in; an older one ends it."""
        made = await self.directory.refresh(refresh_token)
        if made is None:
            return None
        login = made if isinstance(made, Login) else made[0]
        user = self.directory.user(login.user_id)
        if user is None:
            return None
        if isinstance(made, Login):
            return Refused(user.name, self._principal(user, LOGIN + login.id, login.expires_at))
        return self._issued(user, *made)

    def _issued(self, user: User, login: Login, refresh_token: str) -> Issued:
        token, expires_at = self._tokens.issue(user.id, login.id, now(), login.expires_at)
        return Issued(self._principal(user, LOGIN + login.id, expires_at), token, refresh_token)

    def _of_claims(self, claims: Claims) -> Principal | None:
        if claims.login is None:
            # The other issuer vouches for who it is; what they may do here is for us to say.
            named = self.directory.called(claims.subject)
            if named is None or named.disabled or self.directory.is_revoked(claims.id):
                return None
            return self._principal(named, ISSUER + claims.id, claims.expires_at)
        login = self.directory.login(claims.login)
        user = None if login is None else self.directory.user(login.user_id)
        if user is None or user.id != claims.subject:
            return None
        return self._principal(user, LOGIN + claims.login, claims.expires_at)

    def _principal(self, user: User, credential: str, expires_at: datetime) -> Principal:
        scopes = self.directory.scopes(user.id) or frozenset()
        return Principal(user.id, "user", user.name, scopes, expires_at, credential)

    async def _of_key(self, token: str) -> Principal | None:
        key = self.directory.key_of(token)
        scopes = None if key is None else self.directory.scopes_of_key(key)
        if key is None or scopes is None:
            return None
        try:
            await self.directory.used(key)
        except KandevError as error:  # as on a full disk: who reads must still get in
            logger.warning("when key %s was used cannot be kept: %s", key.id, error.message)
        user = self.directory.user(key.owner_id)
        name = "local" if user is None else user.name
        return Principal(key.owner_id, "user", name, scopes, key.expires_at, KEY + key.id)


def is_here(address: str) -> bool:
    """Is it of this machine? "" is the Unix socket, and :: what the host counts ::1 as."""
    try:
        return address in {"", "::"} or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
