"""The watchdog of a turn: an agent from which nothing comes is shown as stalled, and then dealt with by policy.

Silence is measured on the monotonic clock, from the last byte of the agent's output. While a person has a permission
to decide the agent is not silent but waiting. Whatever it says ends the stall.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

import anyio
import msgspec

from kandev_host.models import now


class Talker(Protocol):
    """What is heard of an agent."""

    last_heard: float

    def listen(self) -> anyio.Event:
        """Set as soon as something comes."""
        ...


class Asker(Protocol):
    """What an agent asks of people; `last_answer` is when it last ceased to wait for one."""

    @property
    def last_answer(self) -> float: ...

    @property
    def asking(self) -> bool: ...


class StallWatch(msgspec.Struct, frozen=True):
    """Run it as long as the turn. `tell` records since when the agent is stalled, or that it is not any more.

    `recover`, if given, is called after as long a silence again, with all its seconds; once per stall.
    """

    timeout_s: float
    talker: Talker
    asker: Asker
    tell: Callable[[datetime | None], Awaitable[None]]
    recover: Callable[[float], Awaitable[None]] | None

    async def run(self) -> None:
        """Until it is cancelled."""
        began = time.monotonic()
        while True:
            await self._silence(began)
            heard = self.talker.listen()
            await self.tell(now())
            if self.recover is not None:
                with anyio.move_on_after(self.timeout_s):
                    await heard.wait()
                if not heard.is_set():
                    await self.recover(2 * self.timeout_s)
            await heard.wait()
            await self.tell(None)

    async def _silence(self, began: float) -> None:
        """Returns when nothing has come for the whole time."""
        while True:
            if self.asker.asking:
                left = self.timeout_s
            else:
                last = max(began, self.talker.last_heard, self.asker.last_answer)
                left = last + self.timeout_s - time.monotonic()
            if left <= 0:
                return
            await anyio.sleep(left)
