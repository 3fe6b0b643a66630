"""What is recorded of one run: its row, and the notifications of each change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import anyio
import msgspec

from kandev_host.errors import Busy, KandevError, StorageFull
from kandev_host.events import Event, event
from kandev_host.interfaces import Change, Put
from kandev_host.journal import Journal
from kandev_host.models import Activity, AgentInstance, Session, Task, Turn, now
from kandev_host.protocol.notifications import AgentNotice, HeartbeatPayload, ResultPayload
from kandev_host.sessions.ending import Ending
from kandev_host.sessions.prompts import ENDED
from kandev_host.sessions.stage import Left
from kandev_host.sessions.turns import TurnOutcome
from kandev_host.sessions.updates import Voice
from kandev_host.sessions.usage import unreported

logger = logging.getLogger(__name__)

RETRY_S = 0.25


class RunRecord:
    """The row of a live agent as last recorded; nobody else writes it while the agent lives.

    `turn` is the one that runs and `acp_session_id` the agent's own name of its session, for the events' payloads.
    `ending` says whether the run is told to end.
    """

    def __init__(self, journal: Journal, agent: AgentInstance, task: Task, ending: Callable[[], bool]) -> None:
        self._journal = journal
        self._task = task
        self._ending = ending
        self._voice = Voice(agent)
        self.agent = agent
        self.turn: Turn | None = None
        self.acp_session_id: str | None = None
        self._begun = False
        self._owed: Sequence[Change] = ()  # of a turn whose end the store did not take

    def go_on(self, left: Left) -> None:
        """With what a host had recorded that died."""
        self.turn, self._begun = left.turn, left.turn is not None
        self.acp_session_id = left.session.acp_session_id

    async def write(self, *changes: Change, **fields: Any) -> None:
        """Record these changes together with these fields of the agent."""
        await self._journal.record(*changes, *self._changed(**fields))

    async def post_activity(self, activity: Activity) -> None:
        """Note what the agent does now, without waiting for the disk."""
        await self._journal.post(*self._changed(activity=activity))

    async def tell_stalled(self, since: datetime | None) -> None:
        """Note since when the agent is silent, or that it talks again. A store that fails changes nothing of that."""
        try:
            await self._journal.record(*self._changed(stalled_at=since))
        except KandevError as error:
            logger.warning("the silence of agent %s was not recorded: %s", self.agent.id, error)

    async def begin_turn(self, turn: Turn, *changes: Change) -> None:
        """Record that the turn begins. Raises `KandevError` as `_insist`."""
        self.turn, self._begun = turn, False
        with anyio.CancelScope(shield=True):  # else nobody knew whether its prompt still waits
            await self._insist(Put(turn), *changes, *self._changed(activity="prompting"))
        self._begun = True

    async def end_turn(self, ended: Turn, outcome: TurnOutcome, *changes: Change, activity: Activity) -> None:
        """Record the end of the turn. Raises `KandevError` as `_insist`; then it is written with the end of the run."""
        self._owed = [*changes, Put(ended), self.result(ended, outcome)]
        with anyio.CancelScope(shield=True):  # a turn's end is written once, or not at all
            await self._insist(*self._owed, *self._changed(activity=activity, stalled_at=None))
        self._owed = ()
        self.turn = None

    async def _insist(self, *changes: Change) -> None:
        """Again and again while the store is busy or full: that is no fault of the agent, and costs it nothing.

        Raises what the store said once the run is told to end.
        """
        while True:
            try:
                await self._journal.record(*changes)
                return
            except (Busy, StorageFull) as error:
                if self._ending():
                    raise
                logger.warning("a turn of agent %s waits for the store: %s", self.agent.id, error)
            await anyio.sleep(RETRY_S)

    def end(
        self, ending: Ending, dropped: Sequence[Turn], session: Session | None, exit_code: int | None
    ) -> list[Change]:
        """All that the end of the run changes: its row, its session, the turn that runs, and prompts that are dropped.

        A turn whose beginning the store did not take waits on, unless it is dropped as well.
        """
        over = TurnOutcome(result="cancelled", error=ENDED)
        changes: list[Change] = [Put(over.applied_to(turn)) for turn in dropped]
        changes += self._owed
        if self.turn is not None and not self._owed and (self._begun or dropped):
            broken = TurnOutcome(result="failed", error=ending.reason, failure=ending.failure)
            ended = broken.applied_to(self.turn)
            usage = unreported(ended, board_id=self._task.board_id, agent_type=self.agent.agent_type)
            changes += [Put(ended), Put(usage), self.result(ended, broken)]
        if ending.status == "FAILED":
            changes.append(self.error("AGENT_FAILED", ending.reason or "The agent failed"))
        if session is not None:
            changes.append(Put(msgspec.structs.replace(session, closed_at=now())))
        return changes + self._changed(
            status=ending.status,
            activity=None,
            error_message=ending.reason,
            failure=ending.failure,
            exit_code=exit_code,
            stalled_at=None,
            stopped_at=now(),
        )

    def _changed(self, **fields: Any) -> list[Change]:
        before = self.agent
        self.agent = agent = msgspec.structs.replace(before, updated_at=now(), **fields)
        ids = {"task_id": agent.task_id, "agent_id": agent.id, "board_id": self._task.board_id}
        told = AgentNotice(agent=agent, agent_id=agent.id, task_id=agent.task_id)
        changes: list[Change] = [Put(agent), event("agent.updated", told, **ids)]
        if _shown(before) != _shown(agent):
            turn_id = self.turn.id if self.turn is not None else None
            changes.append(self._voice.status(agent, turn_id, session_id=self.acp_session_id))
        return changes

    def error(self, code: str, message: str, turn_id: str | None = None) -> Event:
        """An acp.error about the agent or a turn of it."""
        return self._voice.error(code, message, turn_id, self.acp_session_id)

    def result(self, turn: Turn, outcome: TurnOutcome) -> Event:
        """The one notification of a turn's end: acp.result, or acp.error if it failed."""
        if outcome.result == "failed":
            return self.error("TURN_FAILED", outcome.error or "The turn failed", turn.id)
        payload = ResultPayload(
            **self._voice.ids(turn.id, self.acp_session_id),
            status=outcome.result,
            stop_reason=outcome.stop_reason,
            summary=outcome.summary,
            artifacts=list(outcome.artifacts),
            usage=outcome.usage,
        )
        return self._voice.event("acp.result", payload)

    def beat(self, cpu_s: float | None, rss_bytes: int | None, last_update_age_s: float | None) -> None:
        """Tell whoever listens that the agent lives; not kept."""
        payload = HeartbeatPayload(
            **self._voice.ids(self.turn.id if self.turn is not None else None, self.acp_session_id),
            alive=True,
            cpu_s=cpu_s,
            rss_bytes=rss_bytes,
            last_update_age_s=last_update_age_s,
        )
        self._journal.publish_transient(self._voice.event("acp.heartbeat", payload, by_agent=False))


def _shown(agent: AgentInstance) -> tuple[object, ...]:
    """What an acp.status tells of an agent."""
    return agent.status, agent.activity, agent.stalled_at
