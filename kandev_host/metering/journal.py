"""Commits as spans of whoever waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kandev_host import tracing
from kandev_host.events import Event
from kandev_host.interfaces import Bus, Change, Expect, Store
from kandev_host.journal import Journal


class TracedJournal(Journal):
    """A journal whose commits are seen in traces; `system` is the name of its store.

    A span is the whole wait for a commit, the queue and its group included. What is only posted has none: it is what
    agents say, by the thousand.
    """

    def __init__(self, store: Store, bus: Bus, *, system: str, **options: Any) -> None:
        super().__init__(store, bus, **options)
        self._described: tracing.Attributes = {"db.system.name": system, "db.operation.name": "commit"}

    async def record(self, *changes: Change, expect: Sequence[Expect] = (), reply: Any = None) -> tuple[int, ...]:
        if tracing.current() is not tracing.NOTHING:
            for change in changes:
                if isinstance(change, Event) and change.task_id is not None:
                    tracing.remember(change.task_id)
        with tracing.child("commit", self._described) as span:
            span.set({"db.operation.batch.size": len(changes)})
            return await super().record(*changes, expect=expect, reply=reply)
