"""How long events are kept: the journal's own background work, in batches so small that no commit waits for one.

Receipts go by age too (protocol.md, Envelope: 24 h).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import msgspec

from kandev_host.errors import KandevError
from kandev_host.intervals import until_due
from kandev_host.models import now

if TYPE_CHECKING:
    from kandev_host.interfaces import Store

logger = logging.getLogger(__name__)

RECEIPTS_KEPT_S = 24 * 3600.0
BATCH = 500
# After each batch the store's writer is left to others for so many times as long as the batch took.
REST = 2.0


class Retention(msgspec.Struct):
    """Events older than `kept_s` and the oldest beyond `limit_bytes` go, looked at every `interval_s`; None: never.

    Each may be changed at any time.
    """

    kept_s: float | None = None
    limit_bytes: int | None = None
    interval_s: float = 60.0


class Trimmer:
    """Removes what `retention` no longer keeps. `forgetting` is told the last `seq` before it goes."""

    def __init__(self, store: Store, retention: Retention, forgetting: Callable[[int], None]) -> None:
        self._store = store
        self._retention = retention
        self._forgetting = forgetting
        self._started = now()
        self._started_s = time.monotonic()

    async def run(self) -> None:
        """For ever. What the store refuses is tried again at the next interval."""
        while True:
            await until_due(lambda: self._retention.interval_s)
            try:
                await self.trim()
            except KandevError as error:
                logger.warning("Old events could not be removed: %s", error)
            except Exception:
                logger.exception("Old events could not be removed")

    async def trim(self) -> None:
        """Remove what is due, batch by batch."""
        retention, at = self._retention, self._now()
        before = None if retention.kept_s is None else at - timedelta(seconds=retention.kept_s)
        receipts_before = at - timedelta(seconds=RECEIPTS_KEPT_S)
        events = receipts = 0
        while True:
            began_s = time.monotonic()
            through = await self._store.expired(before=before, limit_bytes=retention.limit_bytes, limit=BATCH)
            if through:
                # First: whoever reads events after this looks whether what it reads from is still kept.
                self._forgetting(through)
            removed = await self._store.trim(through, receipts_before=receipts_before, limit=BATCH)
            events, receipts = events + removed.events, receipts + removed.receipts
            if not removed.more and not through:
                break
            await anyio.sleep((time.monotonic() - began_s) * REST)
        if events or receipts:
            logger.info("Removed %s old events and %s receipts", events, receipts)

    def _now(self) -> datetime:
        """The earlier one of two clocks, so that a clock that jumps ahead while the host runs removes nothing."""
        return min(now(), self._started + timedelta(seconds=time.monotonic() - self._started_s))
