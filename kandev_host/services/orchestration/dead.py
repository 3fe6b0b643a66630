"""Runs that are over although their rows say that they live: recorded as what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from kandev_host.events import event
from kandev_host.interfaces import Change, Op, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Failure, PermissionRequest, Session, Task, Turn, now
from kandev_host.protocol.notifications import AgentNotice, ErrorPayload, PermissionNotice
from kandev_host.services.rows import every


@dataclass(frozen=True, slots=True)
class Closed:
    """What waited for a run that is over: its turns, running or queued, and its requests."""

    turns: int = 0
    permissions: int = 0


class DeadRuns:
    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    async def fail(self, agent: AgentInstance, reason: str, failure: Failure, code: str) -> Closed:
        """The agent FAILED, and all that waited for it closed, in one commit."""
        failed = replace(
            agent,
            status="FAILED",
            activity=None,
            error_message=reason,
            failure=failure,
            stalled_at=None,
            stopped_at=now(),
            updated_at=now(),
        )
        task = await self._store.get(Task, agent.task_id)
        ids: dict[str, Any] = {"task_id": agent.task_id, "agent_id": agent.id}
        where = ids | {"board_id": task.board_id if task is not None else None}
        changes, closed = await self._closing(agent.id, reason)
        if agent.session_id is not None and (row := await self._store.get(Session, agent.session_id)) is not None:
            changes.append(Put(replace(row, closed_at=row.closed_at or now())))
        told = event("agent.updated", AgentNotice(agent=failed, **ids), **where)
        said = event("acp.error", ErrorPayload(**ids, code=code, message=reason), **where)
        await self._journal.record(Put(failed), told, said, *changes)
        return closed

    async def close(self, agent_id: str, reason: str) -> Closed:
        """Turns and requests that wait for an agent that is over: a crash between two commits can leave them."""
        changes, closed = await self._closing(agent_id, reason)
        if changes:
            await self._journal.record(*changes)
        return closed

    async def _closing(self, agent_id: str, reason: str) -> tuple[list[Change], Closed]:
        changes: list[Change] = []
        turns = permissions = 0
        where: list[tuple[str, Op, Any]] = [("agent_id", "=", agent_id)]
        async for turn in every(self._store, Turn, [*where, ("state", "in", ("queued", "running"))]):
            turns += 1
            state = "cancelled" if turn.state == "queued" else "failed"
            changes.append(Put(replace(turn, state=state, error=reason, ended_at=now())))
        async for request in every(self._store, PermissionRequest, [*where, ("state", "=", "pending")]):
            permissions += 1
            done = replace(request, state="cancelled", decided_by="host", reason=reason, resolved_at=now())
            ids: dict[str, Any] = {"task_id": request.task_id, "agent_id": request.agent_id}
            changes += [Put(done), event("permission.resolved", PermissionNotice(permission=done, **ids), **ids)]
        return changes, Closed(turns, permissions)
