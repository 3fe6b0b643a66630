"""Boards have owners, who are rows of the store: so each user has one there, too, without anything that is secret."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from kandev_host import Put, models
from kandev_host.errors import Conflict
from kandev_users.rows import User

logger = logging.getLogger(__name__)


class Owners:
    """`services` are the host's."""

    def __init__(self, services: Any) -> None:
        self._store = services.store
        self._journal = services.journal

    async def add(self, user: User) -> None:
        """Unless it is there. The row outlives the user, and so do their boards."""
        if await self._store.get(models.User, user.id) is not None:
            return
        row = models.User(id=user.id, email=f"{user.id}@users.invalid", username=user.name)
        try:
            await self._journal.record(Put(row))
        except Conflict:  # somebody before had this name
            await self._journal.record(Put(msgspec.structs.replace(row, username=f"{user.name} {user.id}")))


@asynccontextmanager
async def owners_of(services: Any, users: list[User]) -> AsyncIterator[None]:
    """At the start: what is missing, as after a restore of the store alone."""
    if not users:
        logger.warning(
            "Nobody can log in by name yet: kandev-host user add NAME --role admin, which needs the local token"
        )
    owners = Owners(services)
    for user in users:
        await owners.add(user)
    yield
