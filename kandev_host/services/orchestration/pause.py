"""The pause of the queue, remembered over restarts."""

from __future__ import annotations

from datetime import datetime

import anyio
import msgspec

from kandev_host.interfaces import Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import HostState, now

KEY = "orchestrator"
PAUSED = "The queue is paused"


class _Value(msgspec.Struct, omit_defaults=True):
    paused_at: datetime | None = None
    paused_by: str | None = None


class Paused(msgspec.Struct, frozen=True):
    """Since when, and by whom (a principal's id)."""

    at: datetime
    by: str | None


class Pause:
    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        # Held while something is started from the queue: once a pause is acknowledged, nothing more is.
        self.starting = anyio.Lock()

    async def since(self) -> Paused | None:
        """None while the queue runs."""
        row = await self._store.get(HostState, KEY)
        value = _Value() if row is None else msgspec.convert(row.value, _Value)
        return None if value.paused_at is None else Paused(value.paused_at, value.paused_by)

    async def begin(self, principal: Principal) -> None:
        """Nothing if it is paused already."""
        async with self.starting:
            if await self.since() is None:
                await self._write(_Value(paused_at=now(), paused_by=principal.id))

    async def end(self) -> None:
        """Nothing if it is not paused."""
        if await self.since() is not None:
            await self._write(_Value())

    async def _write(self, value: _Value) -> None:
        await self._journal.record(Put(HostState(id=KEY, value=msgspec.to_builtins(value))))
