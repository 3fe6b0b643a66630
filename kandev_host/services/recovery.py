"""Reconcile at start: what a host that died left behind is found, ended and written down.

Level-triggered: it looks at what is there, not at how it came about, so that running it twice does nothing new.
Deletes only on a positive signal (reliability: cleanup disasters).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from kandev_host.errors import KandevError
from kandev_host.events import event
from kandev_host.interfaces import Change, Op, Put, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.models import (
    LIVE_STATUSES,
    AgentInstance,
    PermissionRequest,
    Task,
    TaskState,
    Turn,
    Workspace,
    now,
)
from kandev_host.services.rows import every
from kandev_host.services.tasks import TaskService
from kandev_host.services.workspaces import WorkspaceService

log = logging.getLogger(__name__)

REASON = "The host died while the agent was running"
HELD: tuple[TaskState, ...] = ("IN_PROGRESS",)


class Recovery:
    def __init__(
        self,
        store: Store,
        journal: Journal,
        runtimes: Mapping[str, Runtime],
        *,
        tasks: TaskService,
        workspaces: WorkspaceService,
    ) -> None:
        self._store = store
        self._journal = journal
        self._runtimes = runtimes
        self._tasks = tasks
        self._workspaces = workspaces

    async def reconcile(self) -> dict[str, Any]:
        """Kill what still runs, mark its runs FAILED, close what waited. Says what it found and did."""
        report: dict[str, Any] = {
            "processes_killed": await self._reap(),
            "agents_failed": [],
            "tasks_failed": [],
            "turns_closed": 0,
            "permissions_cancelled": 0,
            "workspaces_removed": [],
        }
        live = [row async for row in every(self._store, AgentInstance, [("status", "in", LIVE_STATUSES)])]
        for agent in live:
            await self._fail(agent, report)
        await self._close_stray(report)
        await self._remove_orphans(report)
        if live or report["processes_killed"]:
            log.warning(
                "Found %d agents of a host that died: killed %d processes, marked %d runs and %d tasks FAILED, "
                "closed %d turns, cancelled %d permission requests",
                len(live),
                report["processes_killed"],
                len(report["agents_failed"]),
                len(report["tasks_failed"]),
                report["turns_closed"],
                report["permissions_cancelled"],
            )
        return report

    async def _reap(self) -> int:
        killed = 0
        for name, runtime in self._runtimes.items():
            try:
                for owned in await runtime.list_owned():
                    killed += await runtime.reap(owned.ref)
            except KandevError as error:
                log.error("Cannot look for processes of a dead host in the runtime %s: %s", name, error.message)
        return killed

    async def _fail(self, agent: AgentInstance, report: dict[str, Any]) -> None:
        failed = replace(
            agent, status="FAILED", activity=None, error_message=REASON, stopped_at=now(), updated_at=now()
        )
        ids: dict[str, Any] = {"task_id": agent.task_id, "agent_id": agent.id}
        changes: list[Change] = [Put(failed), event("agent.updated", {"agent": failed, **ids}, **ids)]
        changes.append(event("acp.error", {**ids, "code": "HOST_DIED", "message": REASON}, **ids))
        changes += await self._closing(agent.id, report)
        await self._journal.record(*changes)
        report["agents_failed"].append(agent.id)
        task = await self._store.get(Task, agent.task_id)
        if task is not None and task.state in HELD and task.assigned_agent_id == agent.id:
            await self._tasks.transition(task.id, "FAILED", actor="host", reason=REASON, only_from=HELD)
            report["tasks_failed"].append(task.id)
        if await self._store.get(Workspace, agent.task_id) is None:
            await self._remove_half_made(agent)

    async def _closing(self, agent_id: str, report: dict[str, Any]) -> list[Change]:
        """The agent's turns and permission requests, closed."""
        changes: list[Change] = []
        where: list[tuple[str, Op, Any]] = [("agent_id", "=", agent_id)]
        async for turn in every(self._store, Turn, [*where, ("state", "in", ("queued", "running"))]):
            state = "cancelled" if turn.state == "queued" else "failed"
            changes.append(Put(replace(turn, state=state, error=REASON, ended_at=now())))
            report["turns_closed"] += 1
        async for request in every(self._store, PermissionRequest, [*where, ("state", "=", "pending")]):
            closed = replace(request, state="cancelled", decided_by="host", reason=REASON, resolved_at=now())
            ids: dict[str, Any] = {"task_id": request.task_id, "agent_id": request.agent_id}
            changes += [Put(closed), event("permission.resolved", {"permission": closed, **ids}, **ids)]
            report["permissions_cancelled"] += 1
        return changes

    async def _close_stray(self, report: dict[str, Any]) -> None:
        """What waits for an agent that is not live: a crash between two commits can leave it."""
        agents = {row.agent_id async for row in every(self._store, Turn, [("state", "in", ("queued", "running"))])}
        agents |= {row.agent_id async for row in every(self._store, PermissionRequest, [("state", "=", "pending")])}
        for agent_id in sorted(agents):
            changes = await self._closing(agent_id, report)
            if changes:
                await self._journal.record(*changes)

    async def _remove_half_made(self, agent: AgentInstance) -> None:
        runtime = self._runtimes.get(agent.runtime)
        if runtime is None:
            return
        try:
            await runtime.remove(agent.task_id)
        except KandevError as error:
            log.warning("The half-made workspace of task %s stays: %s", agent.task_id, error.message)

    async def _remove_orphans(self, report: dict[str, Any]) -> None:
        """Workspaces whose task was deleted."""
        workspaces = [row async for row in every(self._store, Workspace, [])]
        for workspace in workspaces:
            if await self._store.get(Task, workspace.id) is None and await self._workspaces.discard(workspace.id):
                report["workspaces_removed"].append(workspace.id)
