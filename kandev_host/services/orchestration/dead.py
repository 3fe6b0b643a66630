"""Runs that are over although their rows say that they live: recorded as what they are."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from kandev_host.events import event
from kandev_host.interfaces import Change, Op, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Elicitation, Failure, PermissionRequest, Session, Task, Turn, now
from kandev_host.protocol.notifications import AgentNotice, ElicitationNotice, ErrorPayload, PermissionNotice
from kandev_host.services.rows import every
from kandev_host.sessions.left import is_left
from kandev_host.sessions.usage import unreported
from kandev_host.sessions.wire import forgotten


class Closed(msgspec.Struct, frozen=True):
    """What was open of a run that is over: its turn, and its requests."""

    turns: int = 0
    permissions: int = 0


class DeadRuns:
    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    async def fail(self, agent: AgentInstance, reason: str, failure: Failure, code: str) -> Closed:
        """The agent FAILED, and what was open closed, in one commit. Prompts that wait for it wait on, for a resume."""
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
        changes, closed = await self._closing(failed, reason)
        cut_off = [each.row for each in changes if isinstance(each, Put) and isinstance(each.row, Turn)]
        changes += [Put(unreported(turn, board_id=where["board_id"], agent_type=agent.agent_type)) for turn in cut_off]
        if agent.session_id is not None and (row := await self._store.get(Session, agent.session_id)) is not None:
            changes.append(Put(replace(row, closed_at=row.closed_at or now())))
        told = event("agent.updated", AgentNotice(agent=failed, **ids), **where)
        said = event("acp.error", ErrorPayload(**ids, code=code, message=reason), **where)
        await self._journal.record(Put(failed), told, said, *changes, forgotten(agent.id))
        return closed

    async def close(self, agent_id: str, reason: str) -> Closed:
        """The turn and requests of an agent that is over: a crash between two commits can leave them."""
        agent = await self._store.get(AgentInstance, agent_id)
        changes, closed = await self._closing(agent, reason) if agent is not None else ([], Closed())
        if changes:
            await self._journal.record(*changes)
        return closed

    async def _closing(self, agent: AgentInstance, reason: str) -> tuple[list[Change], Closed]:
        """Permissions stay pending where the session can be gone on with: whoever does may ask the same again."""
        changes: list[Change] = []
        turns = permissions = 0
        where: list[tuple[str, Op, Any]] = [("agent_id", "=", agent.id)]
        async for turn in every(self._store, Turn, [*where, ("state", "=", "running")]):
            turns += 1
            changes.append(Put(replace(turn, state="failed", error=reason, ended_at=now())))
        async for request in every(self._store, PermissionRequest, [*where, ("state", "=", "pending")]):
            if is_left(agent):
                continue
            permissions += 1
            changes += _withdrawn(request, reason)
        async for asked in every(self._store, Elicitation, [*where, ("state", "=", "pending")]):
            ended = replace(asked, state="cancelled", decided_by="host", reason=reason, resolved_at=now())
            told: dict[str, Any] = {"task_id": asked.task_id, "agent_id": asked.agent_id}
            changes += [Put(ended), event("elicitation.resolved", ElicitationNotice(elicitation=ended, **told), **told)]
        return changes, Closed(turns, permissions)


async def left_questions(store: Store, task_id: str, reason: str) -> list[Change]:
    """What cancels the questions that outlived the runs of this task: no run is to go on with it and ask them again."""
    changes: list[Change] = []
    async for request in every(store, PermissionRequest, [("task_id", "=", task_id), ("state", "=", "pending")]):
        if is_left(await store.get(AgentInstance, request.agent_id)):
            changes += _withdrawn(request, reason)
    return changes


def _withdrawn(request: PermissionRequest, reason: str) -> list[Change]:
    done = replace(request, state="cancelled", decided_by="host", reason=reason, resolved_at=now())
    ids: dict[str, Any] = {"task_id": request.task_id, "agent_id": request.agent_id}
    return [Put(done), event("permission.resolved", PermissionNotice(permission=done, **ids), **ids)]
