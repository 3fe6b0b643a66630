"""Reconcile at start: what a host that died left behind is found, ended, written down and tried again.

Level-triggered: it looks at what is there, not at how it came about, so that running it twice does nothing new
(reliability: P9). Deletes only on a positive signal (reliability: cleanup disasters). Bounded: what could not be
looked at in time is named in the report, and looked at later. A runtime that does not answer may still run its agents:
until it does, they count as live, so that nothing runs twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import anyio

from kandev_host.errors import Conflict, KandevError
from kandev_host.interfaces import Runtime, Store
from kandev_host.models import (
    LIVE_STATUSES,
    AgentInstance,
    Elicitation,
    PermissionRequest,
    QueueEntry,
    Task,
    TaskState,
    Turn,
    Workspace,
    now,
)
from kandev_host.services.adoption import Taken
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.conclusions import Conclusions
from kandev_host.services.orchestration.dead import Closed, DeadRuns
from kandev_host.services.orchestration.settling import Settler
from kandev_host.services.reach import Reach, Silence
from kandev_host.services.rows import every
from kandev_host.services.workspaces import WorkspaceService

log = logging.getLogger(__name__)

REASON = "The host died while the agent was running"
REAP_S = 4.0
CLEANUP_S = 4.0
RETRY_S = 5.0
RETRY_LIMIT_S = 60.0
COUNTED = ("processes_killed", "turns_closed", "permissions_cancelled", "shells_closed")
LISTED = (
    "agents_adopted",
    "agents_failed",
    "tasks_failed",
    "tasks_requeued",
    "queue_settled",
    "workspaces_removed",
    "not_reached",
)


class Recovery:
    """Use as an async context manager, before anything is started: entering it reconciles, and what could not be
    reached then is asked again until it is left.

    `report` says what the last look found and did, when, and how long it took; empty before the `first`. `left` is what
    a host that died had left, of the first: a runtime that only does not answer is none of it. `reach` is
    told which runtimes did not answer. `shells` closes those of the dead host, and says how many; `take_over` goes on
    with agents that outlived it, where that can be.
    """

    shells: Callable[[], Awaitable[int]] | None = None
    take_over: Callable[[Mapping[str, Runtime]], Awaitable[Taken]] | None = None

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
        reach: Reach,
    ) -> None:
        self._reach = reach
        self._store = store
        self._runtimes = runtimes
        self._locks = locks
        self._workspaces = workspaces
        self._dead = dead
        self._conclusions = conclusions
        self._settler = settler
        self._taken = Taken()
        self.report: dict[str, Any] = {}
        self.first: dict[str, Any] = {}
        self.left: dict[str, Any] = {}

    async def __aenter__(self) -> Recovery:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        try:
            self.first = await self.reconcile()
            self.left = self._of_a_dead_host(self.first)
        except BaseException:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
            raise
        self._group.start_soon(self._follow_up, name="recovery")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def reconcile(self) -> dict[str, Any]:
        """Go on with what outlived its host, and kill what else still runs; fail its runs, and put those of the queue
        back into it; close what waited.

        Says what it found and did. Before anything is started only: all that it finds counts as dead.
        """
        began, report = time.monotonic(), _empty()
        await self._take_over(self._runtimes, report)
        await self._reap(self._runtimes, report)
        dead: list[AgentInstance] = []
        async for agent in every(self._store, AgentInstance, [("status", "in", LIVE_STATUSES)]):
            if agent.runtime in self._reach.silent:
                self._reach.agents[agent.id] = agent.runtime
            elif agent.id not in self._taken.agents:
                dead.append(agent)
        await self._bury(dead, report)
        await self._close_stray(report)
        await self._settle(report)
        if self.shells is not None:
            report["shells_closed"] = await self.shells()
        with anyio.move_on_after(CLEANUP_S) as cleanup:
            await self._remove_half_made(dead)
            await self._remove_orphans(report)
        if cleanup.cancelled_caught:
            report["not_reached"].append("workspaces of deleted tasks")
        return self._say(report, began)

    async def _take_over(self, runtimes: Mapping[str, Runtime], report: dict[str, Any]) -> None:
        if self.take_over is not None:
            taken = await self.take_over(runtimes)
            self._taken.agents |= taken.agents
            self._taken.refused |= taken.refused
            report["agents_adopted"] += sorted(taken.agents)

    async def _follow_up(self) -> None:
        """Ask the runtimes that did not answer again, until each has; then what ran there is reconciled too."""
        delay_s = RETRY_S
        while self._reach.silent or self._reach.agents:
            await anyio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_LIMIT_S)
            try:
                await self._ask_again()
            except KandevError as error:
                log.error("What a host that died left is looked at again later: %s", error.message)

    async def _ask_again(self) -> None:
        reach, began, report = self._reach, time.monotonic(), _empty()
        silent = {name: self._runtimes[name] for name in reach.silent}
        await self._take_over(silent, report)
        await self._reap(silent, report)
        heard = [agent_id for agent_id, runtime in reach.agents.items() if runtime not in reach.silent]
        rows = [await self._store.get(AgentInstance, id) for id in heard if id not in self._taken.agents]
        await self._bury([row for row in rows if row is not None and row.status in LIVE_STATUSES], report)
        for agent_id in heard:
            reach.agents.pop(agent_id, None)
        self._say(report, began)

    async def _bury(self, dead: Sequence[AgentInstance], report: dict[str, Any]) -> None:
        """Record these runs as over, and what that means for their tasks."""
        for agent in dead:
            await self._fail(agent, report)
        await self._conclude(report)

    def _say(self, report: dict[str, Any], began: float) -> dict[str, Any]:
        found = self._of_a_dead_host(report)
        took_s = round(time.monotonic() - began, 3)
        self.report = {**report, "at": now(), "took_s": took_s}
        if found:
            log.warning("Reconciled what a host that died had left, in %.3f s: %s", took_s, told(found))
        return report

    def _of_a_dead_host(self, report: Mapping[str, Any]) -> dict[str, Any]:
        found = {name: value for name, value in report.items() if value}
        if not self._reach.agents and self._reach.silent.keys() >= set(report["not_reached"]):
            found.pop("not_reached", None)
        return found

    async def _reap(self, runtimes: Mapping[str, Runtime], report: dict[str, Any]) -> None:
        """All at once, so that one that is silent costs the others no time."""
        async with anyio.create_task_group() as tasks:
            for name, runtime in runtimes.items():
                tasks.start_soon(self._reap_one, name, runtime, report)

    async def _reap_one(self, name: str, runtime: Runtime, report: dict[str, Any]) -> None:
        silence: Silence | None = Silence()
        with anyio.move_on_after(REAP_S):
            try:
                for owned in await runtime.list_owned():
                    report["processes_killed"] += await runtime.reap(owned.ref)
                silence = None
            except KandevError as error:
                silence = Silence(error.message, error.details.get("fix"))
            except Exception as error:  # a plugin's own fault must not end the host
                log.exception("The runtime %s failed", name)
                silence = Silence(f"The runtime {name!r} failed: {type(error).__name__}")
        if silence is None:
            self._reach.silent.pop(name, None)
            return
        if self._reach.silent.get(name) != silence:
            log.error(
                "What the runtime %s runs is not known, and it starts nothing: %s", name, silence.reason or "no answer"
            )
        self._reach.silent[name] = silence
        report["not_reached"].append(name)

    async def _fail(self, agent: AgentInstance, report: dict[str, Any]) -> None:
        try:
            why = self._taken.refused.get(agent.id)
            reason = REASON if why is None else f"{REASON}; it outlived it, but is not gone on with: {why}"
            closed = await self._dead.fail(agent, reason, "host_died", "HOST_DIED")
        except KandevError as error:
            log.error("The end of agent %s is not recorded; the sweep of the queue tries again: %s", agent.id, error)
            report["not_reached"].append(f"agent {agent.id}")
            return
        report["agents_failed"].append(agent.id)
        _add(closed, report)

    async def _close_stray(self, report: dict[str, Any]) -> None:
        """What is open of an agent that is not live: a crash between two commits can leave it."""
        agents = {row.agent_id async for row in every(self._store, Turn, [("state", "=", "running")])}
        agents |= {row.agent_id async for row in every(self._store, PermissionRequest, [("state", "=", "pending")])}
        agents |= {row.agent_id async for row in every(self._store, Elicitation, [("state", "=", "pending")])}
        for agent_id in sorted(agents - self._reach.agents.keys() - self._taken.agents):
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
            if entry.agent_id in self._reach.agents or entry.agent_id in self._taken.agents:
                continue
            try:
                await self._settler.settle(entry.id)
            except Conflict as error:
                log.info("queue entry %s stays as it is: %s", entry.id, error.message)
            else:
                report["queue_settled"].append(entry.id)

    async def _remove_half_made(self, agents: Sequence[AgentInstance]) -> None:
        for agent in agents:
            if await self._store.get(Workspace, agent.task_id) is not None:
                continue
            try:
                if (runtime := self._runtimes.get(agent.runtime)) is not None:
                    await runtime.remove(agent.task_id)
            except KandevError as error:
                log.warning("The half-made workspace of task %s stays: %s", agent.task_id, error.message)

    async def _remove_orphans(self, report: dict[str, Any]) -> None:
        """Workspaces and captures whose task was deleted, and workspaces of which a dead host had deleted a part."""
        captured = await self._workspaces.with_captures()
        for task_id in captured:
            if await self._store.get(Task, task_id) is None:
                await self._workspaces.discard(task_id)
        workspaces = [row async for row in every(self._store, Workspace, [])]
        for workspace in workspaces:
            if await self._store.get(Task, workspace.id) is None:
                gone = await self._workspaces.discard(workspace.id)
            elif workspace.removing_at is not None:
                gone = await self._workspaces.try_to_remove(workspace.id)
            else:
                continue
            if gone.removed:
                report["workspaces_removed"].append(workspace.id)


def _empty() -> dict[str, Any]:
    return dict.fromkeys(COUNTED, 0) | {name: [] for name in LISTED}


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
