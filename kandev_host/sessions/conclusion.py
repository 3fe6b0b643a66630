"""The end of a run, until it is recorded: the process is gone already, so nothing but the store can be in the way."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio

from kandev_host.errors import PASSING, KandevError
from kandev_host.events import Event
from kandev_host.interfaces import Change
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance
from kandev_host.sessions.crew import OnEnd, OnExit
from kandev_host.sessions.ending import Ending, logged
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
        self._logged = False
        self._written = False
        self._settled = False

    async def record(self) -> None:
        """Try for RECORD_S, as long as the store refuses for a reason that passes; `catch_up` goes on from there."""
        if not self._logged:  # it may be tried anew, as when the host stops meanwhile
            self._logged = True
            self._log()
        with anyio.move_on_after(RECORD_S):
            await self.catch_up()

    def _log(self) -> None:
        agent, ending = self._agent, self._ending
        if ending.failure is None and ending.reason is None:
            logger.info("Agent %s ended: %s", agent.agent_type, ending.status)
            return
        kind = "" if ending.failure is None else f" ({ending.failure})"
        why = logged(ending.reason, agent.id, agent.task_id)
        logger.info("Agent %s ended: %s%s: %s", agent.agent_type, ending.status, kind, why)

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
            if not self._written:
                await self._write()
                self._written = True
            if self._on_exit is not None:
                await self._on_exit(self._agent, self._ending.reason)
            self._settled = True
        except KandevError as error:
            if error.code in PASSING:
                logger.warning("the end of agent %s, or what follows it, is owed: %s", self._agent.id, error)
            else:
                logger.error("the end of agent %s was not recorded: %s", self._agent.id, error)
                self._settled = True
        return self._settled

    async def _write(self) -> None:
        """Together with its consequences if they can be had, else by itself."""
        try:
            if self._on_end is not None and await self._on_end(self._agent, self._ending, self._changes):
                return
        except KandevError as error:
            if error.code in PASSING:
                raise
            logger.error("what follows the end of agent %s failed: %s", self._agent.id, error)
        if not any(isinstance(change, Event) and change.seq is not None for change in self._changes):
            with anyio.CancelScope(shield=True):  # else a later try could write it again
                await self._journal.record(*self._changes)
