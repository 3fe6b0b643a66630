"""Tickets and sessions: how a browser logs in without ever seeing the token.

A ticket is shown once, in the fragment of a link, and is good for one exchange within a minute. It is exchanged for the
token of a session, which ends by itself, with its logout, or with the credential that made the ticket. Both are
held in memory alone: the end of the host ends them all.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from kandev_host.errors import Conflict, Forbidden
from kandev_host.interfaces import Authenticator, Credentials, Issuer, Principal
from kandev_host.models import new_id, now
from kandev_host.secrets import forget, register

K = TypeVar("K")
SESSION = "session:"
TICKET_BYTES = 16
TOKEN_BYTES = 32
# Of tickets as of sessions. Beyond these somebody's own oldest goes: nobody opens as many by hand.
EACH = 16
# Each session is one more secret to look for, in all that is kept and told.
TOTAL = 256


class _Ticket(msgspec.Struct, frozen=True):
    principal: Principal
    ends: float


@dataclass(frozen=True, slots=True)
class _Session:
    token: str = field(repr=False)
    principal: Principal
    maker: Principal
    ends: float


class Logins:
    """An `Authenticator` in front of the selected one: it also knows the sessions, and holds everyone to their expiry.

    `clock` is monotonic, in seconds: a jump of the wall clock makes nothing last longer.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        session_lifetime_s: float,
        ticket_lifetime_s: float,
        clock: Callable[[], float] = time.monotonic,
        issuer: Issuer | None = None,
    ) -> None:
        """`issuer` is what lets people in by name and password, if anything does."""
        self._authenticator = authenticator
        self.issuer = issuer
        self._session_lifetime_s = session_lifetime_s
        self.ticket_lifetime_s = ticket_lifetime_s
        self._clock = clock
        self._tickets: dict[bytes, _Ticket] = {}
        self._sessions: dict[str, _Session] = {}
        self._by_digest: dict[bytes, _Session] = {}

    @property
    def remote(self) -> bool:
        return self._authenticator.remote

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        # Whoever guesses knows no digests, so looking one up tells nothing about the others.
        session = self._by_digest.get(_digest(credentials.token))
        principal = session.principal if session is not None else await self._authenticator.authenticate(credentials)
        return principal if principal is not None and self.holds(principal) else None

    def holds(self, principal: Principal) -> bool:
        if principal.expires_at is not None and principal.expires_at <= now():
            return False
        if not principal.credential.startswith(SESSION):
            return self._authenticator.holds(principal)
        session = self._sessions.get(principal.credential)
        return session is not None and self._clock() < session.ends and self.holds(session.maker)

    async def revoke(self, principal: Principal) -> bool:
        if principal.credential.startswith(SESSION):
            self._forget(principal.credential)
            return True
        return await self._authenticator.revoke(principal)

    def ticket(self, principal: Principal) -> str:
        """For one exchange. Raises `Forbidden`; `Conflict` for a session, since what ends must not prolong itself, and
        where there is no room.
        """
        if principal.kind != "user":
            raise Forbidden("auth.ticket of a user")
        if principal.credential.startswith(SESSION):
            raise Conflict("A session makes no log-in links: ask with the credential it came from (kandev-host link)")
        self._tickets = {key: each for key, each in self._tickets.items() if self._clock() < each.ends}
        surplus = _surplus(self._tickets, principal.id)
        if surplus is not None:
            del self._tickets[surplus]
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        self._tickets[_digest(ticket)] = _Ticket(principal, self._clock() + self.ticket_lifetime_s)
        return ticket

    def exchange(self, ticket: str) -> tuple[str, Principal] | None:
        """The token of a new session and whose it is; None for a ticket that is not good, or not any more.

        Raises `Conflict` where there is no room.
        """
        found = self._tickets.pop(_digest(ticket), None)
        if found is None or self._clock() >= found.ends or not self.holds(found.principal):
            return None
        for id, session in tuple(self._sessions.items()):
            if self._clock() >= session.ends:
                self._forget(id)
        surplus = _surplus(self._sessions, found.principal.id)
        if surplus is not None:
            self._forget(surplus)
        return self._open(found.principal)

    def _open(self, maker: Principal) -> tuple[str, Principal]:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        register(token, "the token of a session")
        ends = now() + timedelta(seconds=self._session_lifetime_s)
        expires_at = ends if maker.expires_at is None else min(ends, maker.expires_at)
        principal = replace(maker, credential=f"{SESSION}{new_id()}", expires_at=expires_at)
        session = _Session(token, principal, maker, self._clock() + self._session_lifetime_s)
        self._sessions[principal.credential] = self._by_digest[_digest(token)] = session
        return token, principal

    def _forget(self, credential: str) -> None:
        session = self._sessions.pop(credential, None)
        if session is not None:
            del self._by_digest[_digest(session.token)]
            forget(session.token)


def _surplus(held: Mapping[K, _Ticket | _Session], id: str) -> K | None:
    """Which one goes, now that `id` gets one more; None where there is room.

    The oldest of `id`, or of whoever has most: nobody ends what others have by making many. Raises `Conflict` where
    so many have one each.
    """
    counts = Counter(each.principal.id for each in held.values())
    whose = id
    if counts[id] < EACH:
        if len(held) < TOTAL:
            return None
        most = max(counts.values())
        if counts[id] < most:
            if most == 1:
                raise Conflict(f"{TOTAL} others have logged in by a link: wait until one logs out", state="full")
            whose = next(name for name, number in counts.items() if number == most)
    return next(key for key, each in held.items() if each.principal.id == whose)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
