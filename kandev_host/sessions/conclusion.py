"""The end of a run, until it is recorded: the process is gone already, so nothing but the store can be in the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import anyio

from kandev_host.errors import Busy, KandevError, StorageFull
from kandev_host.events import Event
from kandev_host.interfaces import Change
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance
from kandev_host.sessions.crew import OnEnd, OnExit
from kandev_host.sessions.ending import Ending
from kandev_host.sessions.record import RETRY_S

logger = logging.getLogger(__name__)

RECORD_S = 10.0
RETRY_LIMIT_S = 30.0


class Conclusion:
    """What a run's end changes. `on_end` may write it together with what follows for the task, in one commit."""

    def __init__(
        self,
        journal: Journal,
        agent: AgentInstance,
        ending: Ending,
        changes: Sequence[Change],
        on_end: OnEnd | None,
        on_exit: OnExit | None,
    ) -> None:
        self._journal = journal
        self._on_end = on_end
        self._on_exit = on_exit
        self._agent = agent
        self._ending = ending
        self._changes = changes
        self._settled = False

    async def record(self) -> None:
        """Try for RECORD_S while the store is busy or full; `catch_up` goes on from there."""
        deadline = time.monotonic() + RECORD_S
        while time.monotonic() < deadline:
            if await self._settle():
                return
            await anyio.sleep(RETRY_S)

    async def catch_up(self) -> None:
        """Go on trying until it is recorded, however long the store refuses. At once if it was."""
        delay_s = RETRY_S
        while not await self._settle():
            delay_s = min(2 * delay_s, RETRY_LIMIT_S)
            await anyio.sleep(delay_s)

    async def _settle(self) -> bool:
        """Is there nothing left to try?"""
        if self._settled:
            return True
        try:
            await self._write()
            self._settled = True
            if self._on_exit is not None:
                await self._on_exit(self._agent, self._ending.reason)
        except (Busy, StorageFull) as error:
            logger.warning("the end of agent %s is not recorded yet: %s", self._agent.id, error)
        except KandevError as error:
            logger.error("the end of agent %s was not recorded: %s", self._agent.id, error)
            self._settled = True
        return self._settled

    async def _write(self) -> None:
        """Together with its consequences if they can be had, else by itself."""
        try:
            if self._on_end is not None and await self._on_end(self._agent, self._ending, self._changes):
                return
        except (Busy, StorageFull):
            raise
        except KandevError as error:
            logger.error("what follows the end of agent %s failed: %s", self._agent.id, error)
        if not any(isinstance(change, Event) and change.seq is not None for change in self._changes):
            await self._journal.record(*self._changes)
