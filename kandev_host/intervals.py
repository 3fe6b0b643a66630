"""Waiting for the next time, while the settings may change how often that is.

The clock counts while the machine sleeps and never jumps, so that neither a changed time nor a lid makes one early or
late.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import anyio.lowlevel

LOOK_S = 10.0


def clock_s() -> float:
    """Seconds of a clock that only tells how long something took."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def until_due(interval_s: Callable[[], float], since_s: float | None = None) -> None:
    """Return `interval_s()` after `since_s` of `clock_s` (unset: now); it is asked anew at least every LOOK_S."""
    began_s = clock_s() if since_s is None else since_s
    await anyio.lowlevel.checkpoint()
    while (left_s := began_s + interval_s() - clock_s()) > 0:  # noqa: ASYNC110
        await anyio.sleep(min(left_s, LOOK_S))
