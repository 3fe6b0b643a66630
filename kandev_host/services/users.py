"""The users. One, local, exists from the start; more come with log-in for several."""

from __future__ import annotations

from kandev_host.errors import Forbidden, NotFound
from kandev_host.interfaces import ALL_BOARDS, Principal, Put, Store
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
        """The id of the user who owns what `principal` makes, the local one for who acts for all of them.

        Raises `NotFound` for an unknown user, `Forbidden` for another one than itself unless it holds `boards:all`.
        """
        everybody = principal.may(ALL_BOARDS)
        if wanted is not None and wanted != principal.id and not everybody:
            raise Forbidden(ALL_BOARDS, "Only an admin makes somebody else the owner of a board", owner=wanted)
        owner_id = wanted or principal.id
        if await self._store.get(User, owner_id) is not None:
            return owner_id
        if wanted is None and everybody:
            return LOCAL_USER_ID
        raise NotFound("user", owner_id)
