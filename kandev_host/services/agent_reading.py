"""What can be read of agents: their rows, what they are doing, their logs and what they said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Op, Principal, Stats, Store
from kandev_host.models import AgentInstance, AgentLog, LogLevel, Session, Task
from kandev_host.protocol.actions.agents import (
    AgentList,
    AgentLogs,
    AgentsReply,
    AgentStatusGet,
    AgentStatusReply,
    AgentTranscript,
    LogsReply,
    ResourceUse,
    TranscriptEntry,
    TranscriptReply,
)
from kandev_host.services.rows import need
from kandev_host.services.supervision import Supervisor
from kandev_host.services.usage import UsageService

TRANSCRIPT_PAGE_BYTES = 4 << 20
LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")


class AgentReading:
    def __init__(self, store: Store, supervisor: Supervisor, usage: UsageService) -> None:
        self._store = store
        self._supervisor = supervisor
        self._usage = usage

    async def list(self, principal: Principal, request: AgentList) -> AgentsReply:
        """Newest first."""
        del principal
        wanted = (("task_id", request.task_id), ("status", request.status))
        where: Sequence[tuple[str, Op, Any]] = [(name, "=", value) for name, value in wanted if value is not None]
        page = await self._store.find(
            AgentInstance, where, order=("-created_at", "-id"), limit=request.limit, cursor=request.cursor
        )
        return AgentsReply(agents=page.rows, next_cursor=page.next_cursor)

    async def status(self, principal: Principal, request: AgentStatusGet) -> AgentStatusReply:
        """The row, and of a live agent its session and what its processes use now."""
        del principal
        agent = await need(self._store, AgentInstance, request.agent_id)
        live = self._supervisor.live(agent.id)
        stats = Stats() if live is None else await live.stats()
        session = live.session if live is not None else None
        if session is None and agent.session_id is not None:
            session = await self._store.get(Session, agent.session_id)
        return AgentStatusReply(
            agent=agent,
            status=agent.status,
            activity=agent.activity,
            exit_code=agent.exit_code,
            error_message=agent.error_message,
            resource_use=ResourceUse(cpu_s=stats.cpu_s, rss_bytes=stats.rss_bytes, pids=stats.pids),
            session=session,
            usage=await self._usage.of_agent(agent.id),
        )

    async def logs(self, principal: Principal, request: AgentLogs) -> LogsReply:
        """Oldest first."""
        del principal
        await need(self._store, AgentInstance, request.agent_id)
        where: list[tuple[str, Op, Any]] = [("agent_instance_id", "=", request.agent_id)]
        if request.level is not None:
            where.append(("log_level", "in", LEVELS[LEVELS.index(request.level) :]))
        page = await self._store.find(AgentLog, where, limit=request.limit, cursor=request.cursor)
        return LogsReply(logs=page.rows, next_cursor=page.next_cursor)

    async def transcript(self, principal: Principal, request: AgentTranscript) -> TranscriptReply:
        """The stored `acp.*` notifications by `seq`. Raises `ValidationFailed` unless exactly one id is given."""
        del principal
        if (request.agent_id is None) == (request.task_id is None):
            raise ValidationFailed("agent_id", "Give either agent_id or task_id")
        if request.agent_id is not None:
            topic = f"agent:{(await need(self._store, AgentInstance, request.agent_id)).id}"
        else:
            topic = f"task:{(await need(self._store, Task, request.task_id or '')).id}"
        bounds = {"limit": request.limit, "limit_bytes": TRANSCRIPT_PAGE_BYTES}
        found = await self._store.events(request.after_seq, topics=(topic,), action_prefix="acp.", **bounds)
        updates = [
            TranscriptEntry(
                seq=item.seq or 0,
                id=item.id,
                action=item.action,
                agent_id=item.agent_id,
                task_id=item.task_id,
                turn_id=item.turn_id,
                timestamp=item.created_at,
                payload=item.payload,
            )
            for item in found
        ]
        # Of an agent whose lines are as long as they may be, a page of many would be gigabytes.
        more = len(updates) == request.limit or sum(len(bytes(item.payload)) for item in found) >= TRANSCRIPT_PAGE_BYTES
        return TranscriptReply(updates=updates, next_after_seq=updates[-1].seq if more else None)
