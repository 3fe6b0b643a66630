"""The users. One, local, exists from the start; more come with log-in for several."""

from __future__ import annotations

from kandev_host.errors import NotFound
from kandev_host.interfaces import Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import LOCAL_USER_ID, User

HOST = Principal("host", "host", "host", frozenset({"*"}))
"""The host itself, where it acts by itself."""


class UserService:
    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    async def ensure_local(self) -> User:
        """The local user, made at the first start."""
        found = await self._store.get(User, LOCAL_USER_ID)
        if found is not None:
            return found
        user = User(id=LOCAL_USER_ID, email="local@localhost", username="local")
        await self._journal.record(Put(user))
        return user

    async def owner(self, principal: Principal, wanted: str | None) -> str:
        """The id of the user who owns what `principal` makes. Raises `NotFound` for an unknown `wanted`."""
        if wanted is not None:
            if await self._store.get(User, wanted) is None:
                raise NotFound("user", wanted)
            return wanted
        is_user = principal.kind == "user" and await self._store.get(User, principal.id) is not None
        return principal.id if is_user else LOCAL_USER_ID
