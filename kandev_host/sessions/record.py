"""What is recorded of one run: its row, and the notifications of each change."""

from __future__ import annotations

from typing import Any

import msgspec

from kandev_host.events import Event, event
from kandev_host.interfaces import Change, Put
from kandev_host.journal import Journal
from kandev_host.models import Activity, AgentInstance, Task, Turn, now
from kandev_host.sessions.turns import TurnOutcome
from kandev_host.sessions.updates import HeartbeatPayload, ResultPayload, Voice


class RunRecord:
    """The row of a live agent as last recorded; nobody else writes it while the agent lives.

    `turn` is the one that runs and `acp_session_id` the agent's own name of its session, for the events' payloads.
    """

    def __init__(self, journal: Journal, agent: AgentInstance, task: Task) -> None:
        self._journal = journal
        self._task = task
        self._voice = Voice(agent)
        self.agent = agent
        self.turn: Turn | None = None
        self.acp_session_id: str | None = None

    async def write(self, *changes: Change, **fields: Any) -> None:
        """Record these changes together with these fields of the agent."""
        await self._journal.record(*changes, *self._changed(**fields))

    async def post_activity(self, activity: Activity) -> None:
        """Note what the agent does now, without waiting for the disk."""
        await self._journal.post(*self._changed(activity=activity))

    def _changed(self, **fields: Any) -> list[Change]:
        before = self.agent
        self.agent = agent = msgspec.structs.replace(before, updated_at=now(), **fields)
        ids = {"task_id": agent.task_id, "agent_id": agent.id, "board_id": self._task.board_id}
        changes: list[Change] = [Put(agent), event("agent.updated", {"agent": agent}, **ids)]
        if (before.status, before.activity) != (agent.status, agent.activity):
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
            artifacts=[],
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
