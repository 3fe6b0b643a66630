"""What a run goes on with that follows another one: its session, and what was said in it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from kandev_host.errors import Conflict, ValidationFailed
from kandev_host.interfaces import AgentType, Runtime, Store
from kandev_host.models import AgentInstance, QueueEntry, Session, Turn, now
from kandev_host.services.rows import every
from kandev_host.services.rules import check_preset
from kandev_host.services.usage import UsageService
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.presets import Preset
from kandev_host.sessions.stage import Resume
from kandev_host.settings import PermissionSettings

TRANSCRIPT_CHARS = 64 << 10
PROMPT_CHARS = 4000
ANSWERS = 200
RUNS = 100  # that are looked back on
LEAD = "Your work on this task was interrupted: {reason}. Go on with it; what you had done so far is in the workspace."
HEAD = "What was said and done on this task before, in a session that is gone:"


class _Result(msgspec.Struct):
    turn_id: str | None = None
    summary: str | None = None


_result = msgspec.json.Decoder(_Result)


class Past(msgspec.Struct, frozen=True):
    """The run that a new one goes on with: with its prompts that wait, and with its session if `resume` says so.

    `interrupted`: a person cut it short with a prompt that is still to be sent.
    """

    agent: AgentInstance
    resume: Resume | None
    interrupted: bool = False


class Resumer:
    def __init__(self, store: Store, usage: UsageService) -> None:
        self._store = store
        self._usage = usage

    async def need(self, agent: AgentInstance, *, interrupted: bool = False) -> Past:
        """For a person who wants to go on where this run ended.

        A run that never had a session was to go on with another one's, perhaps. Raises `Conflict` if there is neither a
        session nor a prompt that waits.
        """
        before: AgentInstance | None = agent
        for _ in range(RUNS):
            if before is None:
                break
            if (resume := await self._of(before, None)) is not None:
                return Past(agent, resume, interrupted)
            before = None if before.resumed_from is None else await self._store.get(AgentInstance, before.resumed_from)
        if not await self._store.count(Turn, [("agent_id", "=", agent.id), ("state", "=", "queued")]):
            raise Conflict(
                "This run has no session, or it was deleted; launch a new one", state=agent.status, agent_id=agent.id
            )
        return Past(agent, None, interrupted)

    async def after(self, entry: QueueEntry | None) -> Past | None:
        """For the next run of the queue's; None to begin anew.

        One that broke in a session that it went on with itself leaves its prompts alone: the session may be the cause.
        """
        if entry is None or entry.resume_from is None:
            return None
        agent = await self._store.get(AgentInstance, entry.resume_from)
        if agent is None:
            return None
        if agent.failure == "crash" and agent.resumed_from is not None:
            return Past(agent, None)
        return Past(agent, await self._of(agent, LEAD.format(reason=entry.reason or "it ended")))

    async def _of(self, agent: AgentInstance, lead: str | None) -> Resume | None:
        session = None if agent.session_id is None else await self._store.get(Session, agent.session_id)
        if session is None or session.deleted_at is not None:
            return None
        runs = await self._runs(agent)
        return Resume(
            session=session,
            transcript=await self._transcript(runs),
            lead=lead,
            standing=await self._usage.standing([run.id for run in await self._same_session(runs)]),
        )

    async def _same_session(self, runs: Sequence[AgentInstance]) -> list[AgentInstance]:
        """The newest of these runs, back to the one that opened their session anew."""
        same: list[AgentInstance] = []
        for run in reversed(runs):
            same.append(run)
            session = None if run.session_id is None else await self._store.get(Session, run.session_id)
            if session is not None and session.opened not in {"resume", "load"}:
                break
        return same

    async def _runs(self, agent: AgentInstance) -> list[AgentInstance]:
        """This run and those that it goes on with, the oldest first."""
        runs = [agent]
        while runs[-1].resumed_from is not None and len(runs) < RUNS:
            before = await self._store.get(AgentInstance, runs[-1].resumed_from)
            if before is None:
                break
            runs.append(before)
        return runs[::-1]

    async def _transcript(self, runs: Sequence[AgentInstance]) -> str:
        """Their prompts and the last words of their turns, the newest part; empty when nothing was ever answered."""
        parts, answered = [], False
        for run in runs:
            answers = await self._answers(run)
            answered = answered or bool(answers)
            parts += await self._told(run, answers)
        told = "\n\n".join(parts)[-TRANSCRIPT_CHARS:]
        return f"{HEAD}\n\n{told}" if answered else ""

    async def _told(self, agent: AgentInstance, answers: Mapping[str, str]) -> list[str]:
        parts = []
        async for turn in every(self._store, Turn, [("agent_id", "=", agent.id)]):
            if turn.started_at is None:
                continue
            asked = "\n".join(str(block["text"]) for block in turn.prompt if isinstance(block.get("text"), str))
            parts.append(f"## Asked\n\n{asked[:PROMPT_CHARS]}")
            if turn.id in answers:
                parts.append(f"## Answered\n\n{answers[turn.id]}")
        return parts

    async def _answers(self, agent: AgentInstance) -> dict[str, str]:
        """What the agent said last in each of its turns."""
        found: dict[str, str] = {}
        after_seq = 0
        while True:
            page = await self._store.events(
                after_seq, topics=(f"agent:{agent.id}",), limit=ANSWERS, action_prefix="acp.result"
            )
            for item in page:
                result = _result.decode(item.payload)
                if result.turn_id is not None and result.summary:
                    found[result.turn_id] = result.summary
            if len(page) < ANSWERS:
                return found
            after_seq = page[-1].seq or 0


def kept_situation(
    past: AgentInstance, anew: Situation, agent_type: AgentType, runtime: Runtime, settings: PermissionSettings
) -> Situation:
    """What a run may do without asking that goes on with this one: the same, and for no longer.

    A preset that has expired, or that does not fit any more, is `ask`. `anew` is for runs from before it was kept.
    """
    if past.preset is None:
        return anew
    left_s = None
    if past.preset_expires_at is not None:
        left_s = min((past.preset_expires_at - now()).total_seconds(), settings.unattended_limit_s)
    preset = cast("Preset", past.preset)
    note = f"the preset {preset} has expired: the preset is ask"
    known: Any = {"task_id": past.task_id, "outward": anew.outward, "settings": settings}
    try:
        if left_s is None or left_s > 0:
            kept = check_preset(preset, agent_type, runtime, **known)
            return kept if left_s is None else replace(kept, expires_at=time.monotonic() + left_s)
    except ValidationFailed as error:
        note = f"{error.message}: the preset is ask"
    asking = check_preset("ask", agent_type, runtime, **known)
    return replace(asking, note=note)


def expiry(situation: Situation) -> datetime | None:
    """When its preset becomes `ask`, by the wall clock, for a run that goes on with it in another process."""
    if situation.expires_at is None:
        return None
    return now() + timedelta(seconds=situation.expires_at - time.monotonic())
