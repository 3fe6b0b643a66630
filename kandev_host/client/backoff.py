"""When to try again: full jitter under a limit that doubles, and an end to it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """Waits of a client that comes back, in seconds. `give_up_s` counts from the loss; infinity means never.

    The waits start anew after a connection that lasted `healthy_s`.
    """

    first_s: float = 0.1
    limit_s: float = 10.0
    give_up_s: float = 60.0
    healthy_s: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.first_s <= self.limit_s < math.inf and self.give_up_s >= 0):
            raise ValueError("Backoff: 0 < first_s <= limit_s, both finite, and give_up_s >= 0")

    def waits(self, fraction: Callable[[], float] = random.random) -> Iterator[float]:
        """Each wait is anywhere from 0 to a longest that doubles, so that many clients do not come back at once."""
        longest = self.first_s
        while True:
            yield longest * fraction()
            longest = min(2 * longest, self.limit_s)
