"""Time as the orchestrator sees it: it waits on the monotonic clock, so that a jump of the other means nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

import anyio

from kandev_host.models import QueueEntry, now

LONGEST_S = 30 * 86_400.0


class Clock:
    """The real one; a test brings its own."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def now(self) -> datetime:
        """The wall clock, for rows."""
        return now()

    async def wait(self, woken: anyio.Event, seconds: float | None) -> None:
        """Until it is set, or so many seconds have passed; None is no limit."""
        with anyio.move_on_after(seconds):
            await woken.wait()


class Backoffs:
    """How long entries of the queue still have to wait.

    `not_before` in the row is wall time, for people and for the next start of the host. Within one start it is turned
    into monotonic time once, when it is first seen.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, tuple[datetime, float]] = {}

    def note(self, task_id: str, not_before: datetime, delay_s: float) -> None:
        """An entry that was just given this `not_before`, `delay_s` seconds from now."""
        self._due[task_id] = (not_before, self._clock.monotonic() + delay_s)

    def due(self, entry: QueueEntry) -> float:
        """When it may be started, on the monotonic clock."""
        if entry.not_before is None:
            return 0.0
        known = self._due.get(entry.id)
        if known is None or known[0] != entry.not_before:
            seconds = (entry.not_before - self._clock.now()).total_seconds()
            self.note(entry.id, entry.not_before, min(max(seconds, 0.0), LONGEST_S))
            known = self._due[entry.id]
        return known[1]

    def over(self, entry: QueueEntry) -> bool:
        """May it be started now?"""
        return self.due(entry) <= self._clock.monotonic()

    def keep_only(self, task_ids: Iterable[str]) -> None:
        """Forget the entries that are not among these."""
        kept = set(task_ids)
        self._due = {task_id: due for task_id, due in self._due.items() if task_id in kept}
