"""Reconcile at start: what a host that died left behind is found, ended, written down and tried again.

Level-triggered: it looks at what is there, not at how it came about, so that running it twice does nothing new
(reliability: P9). Deletes only on a positive signal (reliability: cleanup disasters). Bounded: what could not be
looked at in time is named in the report, and looked at at the next start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import anyio

from kandev_host.errors import Conflict, KandevError
from kandev_host.interfaces import Runtime, Store
from kandev_host.models import (
    LIVE_STATUSES,
    AgentInstance,
    PermissionRequest,
    QueueEntry,
    Task,
    TaskState,
    Turn,
    Workspace,
    now,
)
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.conclusions import Conclusions
from kandev_host.services.orchestration.dead import Closed, DeadRuns
from kandev_host.services.orchestration.settling import Settler
from kandev_host.services.rows import every
from kandev_host.services.workspaces import WorkspaceService

log = logging.getLogger(__name__)

REASON = "The host died while the agent was running"
REAP_S = 4.0
CLEANUP_S = 4.0
COUNTED = ("processes_killed", "turns_closed", "permissions_cancelled")
LISTED = ("agents_failed", "tasks_failed", "tasks_requeued", "queue_settled", "workspaces_removed", "not_reached")


class Recovery:
    """`report` says what the last `reconcile` found and did, when, and how long it took; empty before the first."""

    def __init__(
        self,
        store: Store,
        runtimes: Mapping[str, Runtime],
        *,
        locks: Locks,
        workspaces: WorkspaceService,
        dead: DeadRuns,
        conclusions: Conclusions,
        settler: Settler,
    ) -> None:
        self._store = store
        self._runtimes = runtimes
        self._locks = locks
        self._workspaces = workspaces
        self._dead = dead
        self._conclusions = conclusions
        self._settler = settler
        self.report: dict[str, Any] = {}

    async def reconcile(self) -> dict[str, Any]:
        """Kill what still runs; fail its runs, and put those of the queue back into it; close what waited.

        Call it before anything is started. Says what it found and did.
        """
        began = time.monotonic()
        report: dict[str, Any] = dict.fromkeys(COUNTED, 0) | {name: [] for name in LISTED}
        await self._reap(report)
        for agent in [row async for row in every(self._store, AgentInstance, [("status", "in", LIVE_STATUSES)])]:
            await self._fail(agent, report)
        await self._close_stray(report)
        await self._conclude(report)
        await self._settle(report)
        with anyio.move_on_after(CLEANUP_S) as cleanup:
            await self._remove_orphans(report)
        if cleanup.cancelled_caught:
            report["not_reached"].append("workspaces of deleted tasks")
        found = {name: value for name, value in report.items() if value}
        took_s = round(time.monotonic() - began, 3)
        self.report = {**report, "at": now(), "took_s": took_s}
        if found:
            log.warning("Reconciled what a host that died had left, in %.3f s: %s", took_s, told(found))
        return report

    async def _reap(self, report: dict[str, Any]) -> None:
        for name, runtime in self._runtimes.items():
            with anyio.move_on_after(REAP_S) as limit:
                try:
                    for owned in await runtime.list_owned():
                        report["processes_killed"] += await runtime.reap(owned.ref)
                except KandevError as error:
                    log.error("Cannot look for processes of a dead host in the runtime %s: %s", name, error.message)
                    report["not_reached"].append(name)
            if limit.cancelled_caught:
                log.error("The runtime %s did not answer within %g s", name, REAP_S)
                report["not_reached"].append(name)

    async def _fail(self, agent: AgentInstance, report: dict[str, Any]) -> None:
        closed = await self._dead.fail(agent, REASON, "host_died", "HOST_DIED")
        report["agents_failed"].append(agent.id)
        _add(closed, report)
        if await self._store.get(Workspace, agent.task_id) is None:
            await self._remove_half_made(agent)

    async def _close_stray(self, report: dict[str, Any]) -> None:
        """What waits for an agent that is not live: a crash between two commits can leave it."""
        agents = {row.agent_id async for row in every(self._store, Turn, [("state", "in", ("queued", "running"))])}
        agents |= {row.agent_id async for row in every(self._store, PermissionRequest, [("state", "=", "pending")])}
        for agent_id in sorted(agents):
            _add(await self._dead.close(agent_id, REASON), report)

    async def _conclude(self, report: dict[str, Any]) -> None:
        """Tasks whose run is over, and which nobody told so: now, or by the host that died just then."""
        async for task in every(self._store, Task, [("state", "=", "IN_PROGRESS")]):
            agent = await self._store.get(AgentInstance, task.assigned_agent_id or "")
            if agent is None or agent.status in LIVE_STATUSES or not _since(task, agent):
                continue
            async with self._locks.hold(f"task:{task.id}"):
                try:
                    await self._conclusions.of_ended(agent)
                except Conflict as error:
                    log.info("task %s stays as it is: %s", task.id, error.message)
            after = await self._store.get(Task, task.id)
            _count(task.id, after.state if after is not None else "IN_PROGRESS", report)

    async def _settle(self, report: dict[str, Any]) -> None:
        """Leases whose task went another way meanwhile."""
        async for entry in every(self._store, QueueEntry, [("state", "=", "running")]):
            try:
                await self._settler.settle(entry.id)
            except Conflict as error:
                log.info("queue entry %s stays as it is: %s", entry.id, error.message)
            else:
                report["queue_settled"].append(entry.id)

    async def _remove_half_made(self, agent: AgentInstance) -> None:
        runtime = self._runtimes.get(agent.runtime)
        if runtime is None:
            return
        with anyio.move_on_after(CLEANUP_S):
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


def _since(task: Task, agent: AgentInstance) -> bool:
    """Did the run end after the task came to be IN_PROGRESS? Else a person set it so, to do it by hand."""
    return agent.stopped_at is not None and (task.started_at is None or agent.stopped_at >= task.started_at)


def _add(closed: Closed, report: dict[str, Any]) -> None:
    report["turns_closed"] += closed.turns
    report["permissions_cancelled"] += closed.permissions


def _count(task_id: str, state: TaskState, report: dict[str, Any]) -> None:
    if state == "TODO":
        report["tasks_requeued"].append(task_id)
    elif state == "FAILED":
        report["tasks_failed"].append(task_id)


def told(report: Mapping[str, Any]) -> str:
    """One line: "processes killed 2, tasks requeued 1"."""
    counts = {key: len(value) if isinstance(value, list) else value for key, value in report.items()}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items())
