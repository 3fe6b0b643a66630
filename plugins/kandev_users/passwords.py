"""Passwords: argon2id, and the queue in front of it.

To look at a password takes tens of milliseconds and megabytes on purpose. So only a few are looked at at once, in
threads; who waits is served in turn by address, so that whoever floods from one address delays nobody at another.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque

import anyio
import anyio.to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from kandev_host.errors import RateLimited, ValidationFailed

LEAST_CHARS = 12
MOST_CHARS = 1024
WAITING_PER_ADDRESS = 64
WAITING = 1024
RETRY_S = 2.0
# OWASP's least for argon2id, m=19 MiB, t=2, p=1: about 25 ms, so that a flood is answered rather than queued.
MEMORY_KIB = 19_456
ROUNDS = 2
# What stands in examples and at the top of every list of guesses.
SAMPLES = ("password", "changeme", "change-me", "secret", "kandev", "administrator", "letmein", "qwerty", "123456789")
_SIGNS = str.maketrans("", "", " -_.!?#*0123456789")


class Turns:
    """At most `at_once` go on at the same time; the others wait, and are let on in turn by address."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._count = 0

    async def __call__(self, address: str) -> None:
        """Wait for one's turn; then `done` must follow. Raises `RateLimited` when too many wait already."""
        if self._free > 0:
            self._free -= 1
            return
        queue = self._waiting.get(address, deque())
        if len(queue) >= WAITING_PER_ADDRESS or self._count >= WAITING:
            raise RateLimited(RETRY_S)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, queue).append(turn)
        self._count += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.done()  # it had just been let on
            else:
                self._leave(address, turn)
            raise

    def done(self) -> None:
        """One has ended: the next is let on."""
        if not self._waiting:
            self._free += 1
            return
        address = next(iter(self._waiting))
        queue = self._waiting.pop(address)
        turn = queue.popleft()
        self._count -= 1
        if queue:
            self._waiting[address] = queue  # behind the others
        turn.set_result(None)

    def _leave(self, address: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting[address]
        queue.remove(turn)
        self._count -= 1
        if not queue:
            del self._waiting[address]


class Passwords:
    """Hashes and checks; in threads, as many at once as leave a processor for the rest."""

    def __init__(self, memory_kib: int = MEMORY_KIB, rounds: int = ROUNDS) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory_kib, parallelism=1)
        self._turns = Turns(max(1, min(4, (os.cpu_count() or 1) // 2)))
        # Of nobody's password: what a name that nobody has is checked against, so that it takes as long.
        self._nobodys = self._hasher.hash(os.urandom(32))

    async def check(self, password: str, hash: str | None, address: str) -> bool:
        """Is it the one? Takes as long without a hash. Raises `RateLimited` when too many of this address wait."""
        await self._turns(address)
        try:
            return await anyio.to_thread.run_sync(self._verified, password, hash)
        finally:
            self._turns.done()

    async def hashed(self, password: str, name: str) -> str:
        """What is kept. Raises `ValidationFailed` for a password that is easily guessed."""
        check_password(password, name)
        await self._turns("")
        try:
            return await anyio.to_thread.run_sync(self._hasher.hash, password)
        finally:
            self._turns.done()

    def _verified(self, password: str, hash: str | None) -> bool:
        try:
            return self._hasher.verify(hash or self._nobodys, password) and hash is not None
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False


def check_password(password: str, name: str) -> None:
    """Raises `ValidationFailed`, with what is wrong."""
    if not LEAST_CHARS <= len(password) <= MOST_CHARS:
        raise ValidationFailed("password", f"A password has {LEAST_CHARS} characters or more (at most {MOST_CHARS})")
    plain = password.lower()
    bare = plain.translate(_SIGNS)
    known = [word for each in (*SAMPLES, name.lower()) if (word := each.translate(_SIGNS))]
    if len(set(plain)) < 5 or any(not bare.replace(word, "") for word in known):
        raise ValidationFailed("password", "This password is easily guessed: take several words, or a random one")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise ValidationFailed("password", "The password holds what is no character") from None
