"""Starts of agents, so that the queue relies on no count of live ones that somebody else's start has outrun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kandev_host.errors import Conflict


class Outrun(Conflict):
    """An agent was started since the queue counted: it counts again."""


class Starts:
    """Every commit that starts an agent is made within `one`."""

    def __init__(self) -> None:
        self._under_way = 0
        self._over = 0

    def moment(self) -> int:
        """To be taken before the live agents are counted, and given to `one` with what is started by that count."""
        return self._over

    @contextmanager
    def one(self, counted_at: int | None) -> Iterator[None]:
        """`counted_at` is None for a start that no bound holds back: what people start, and what goes on.

        Raises `Outrun` if such a one has been made since, or is being made: its row may have been missing in the count.
        """
        if counted_at is not None:
            if self._under_way or self._over != counted_at:
                raise Outrun("Another agent was started meanwhile", state="claimed")
            yield
            return
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._over += 1
