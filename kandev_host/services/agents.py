"""Agents: which there are, starting them, talking to them, ending them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from kandev_host.errors import Busy, Conflict, KandevError, Unavailable, ValidationFailed
from kandev_host.interfaces import AgentType, Op, Principal, Put, Stats, Store
from kandev_host.models import (
    LIVE_STATUSES,
    AgentInstance,
    AgentLog,
    AgentStatus,
    LogLevel,
    QueueEntry,
    Session,
    Task,
    TaskState,
)
from kandev_host.protocol.actions.agents import (
    AgentCancel,
    AgentLaunch,
    AgentList,
    AgentLogs,
    AgentPrompt,
    AgentReply,
    AgentsReply,
    AgentStatusGet,
    AgentStatusReply,
    AgentStop,
    AgentTranscript,
    LogsReply,
    ResourceUse,
    TranscriptEntry,
    TranscriptReply,
    TurnReply,
)
from kandev_host.services.agent_types import AgentTypeService
from kandev_host.services.launcher import Launch, Launcher, agent_event
from kandev_host.services.launches import merge_limits
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.lease import Claim, Leases, taken
from kandev_host.services.prompts import task_prompt, to_blocks
from kandev_host.services.reach import Reach
from kandev_host.services.rows import need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.supervision import Supervisor
from kandev_host.services.tasks import TaskService
from kandev_host.services.usage import UsageService
from kandev_host.services.workspaces import WorkspaceService

START_WAIT_S = 55.0
LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")
NOT_RUNNING: tuple[TaskState, ...] = ("TODO", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED")


class AgentService:
    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        *,
        types: AgentTypeService,
        locks: Locks,
        runs: LiveRuns,
        tasks: TaskService,
        workspaces: WorkspaceService,
        launcher: Launcher,
        usage: UsageService,
        leases: Leases,
        reach: Reach,
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._locks = locks
        self._runs = runs
        self._tasks = tasks
        self._workspaces = workspaces
        self._launcher = launcher
        self._usage = usage
        self._leases = leases
        self._reach = reach
        self.types = types
        self.ended_by: dict[str, str] = {}  # agent → who ended it, until that is judged, even if they went away
        runs.stop = self.end

    # --- launch -------------------------------------------------------------------------------------------------------

    async def launch(self, principal: Principal, request: AgentLaunch) -> AgentReply:
        """Start an agent that waits for prompts. Raises as `begin`."""
        _, agent = await self.begin(principal, request, orchestrated=False)
        return AgentReply(agent=agent)

    async def begin(
        self, principal: Principal, request: AgentLaunch, *, orchestrated: bool, seen: QueueEntry | None = None
    ) -> tuple[Task, AgentInstance]:
        """A PENDING agent whose workspace and process are being made; what fails from here on is in its status.

        Agent, task and lease are claimed in one commit. `seen` is the entry that the queue starts; a person claims
        whatever is there. Raises `NotFound`, `ValidationFailed` (also for a repository that cannot be one),
        `Unavailable`, `Conflict`.
        """
        task = await need(self._store, Task, request.task_id)
        agent_type = self._agent_type(request.agent_type, task)
        blocks = None if request.prompt is None else to_blocks(request.prompt)
        runtime = request.runtime or agent_type.runtime or self.types.default_runtime
        limits = merge_limits(agent_type.default_resources, request.resources)
        self._workspaces.runtime(runtime)
        await self._check_available(agent_type, runtime)
        self._launcher.check_open()
        async with self._locks.hold(f"task:{task.id}"):
            live = await self._runs.of_task(task.id)
            if live:
                raise Conflict("The task has a live agent", state=live[0].status, agent_id=live[0].id)
            task = await need(self._store, Task, task.id)
            entry = await self._store.get(QueueEntry, task.id)
            if seen is not None and (entry != seen or await self._blocked(task)):
                raise taken(task.id)  # it changed since the queue looked, which looks again
            await self._workspaces.check(task, runtime)
            agent = AgentInstance(
                task_id=task.id,
                agent_type=agent_type.name,
                runtime=runtime,
                activity="starting",
                orchestrated=orchestrated,
                image_name=agent_type.image,
                resource_limits=limits,
                attempt=1 if seen is None or entry is None else entry.attempt + 1,
            )
            launch = Launch(
                agent=agent,
                task=task,
                agent_type=agent_type,
                blocks=task_prompt(task) if orchestrated else blocks,
                created_by=principal.id,
                preset=request.preset,
            )
            with anyio.CancelScope(shield=True):  # never a PENDING row that nobody brings up
                claim = self._claim(principal, request, launch, entry, queued=seen is not None)
                launch.task = await self._take(launch, claim)
                self._launcher.begin(launch)
        return launch.task, agent

    async def _blocked(self, task: Task) -> bool:
        """Does it wait for a task that is there and not COMPLETED?"""
        blockers = [await self._store.get(Task, id) for id in task.blocked_by]
        return any(blocker is not None and blocker.state != "COMPLETED" for blocker in blockers)

    def _claim(
        self, principal: Principal, request: AgentLaunch, launch: Launch, entry: QueueEntry | None, *, queued: bool
    ) -> Claim:
        if not launch.agent.orchestrated:
            return self._leases.launch(entry)
        if queued and entry is not None:
            return self._leases.queued(entry, launch.agent)
        return self._leases.by_hand(
            launch.task,
            entry,
            launch.agent,
            principal.id,
            agent_type=request.agent_type,
            preset=request.preset,
        )

    async def _take(self, launch: Launch, claim: Claim) -> Task:
        """The task, IN_PROGRESS and assigned. Raises `Conflict` when somebody was faster."""
        agent, task = launch.agent, launch.task
        task = await self._tasks.transition(
            task.id,
            "IN_PROGRESS",
            actor=launch.created_by,
            by_prompt=launch.blocks is not None,
            only_from=claim.only_from,
            assigned_agent_id=agent.id,
            also=(Put(agent), agent_event(agent, task.board_id, launch.created_by), *claim.changes),
            expect=claim.expect,
        )
        if task.assigned_agent_id != agent.id:
            raise taken(task.id)
        return task

    def alive(self, agent_id: str) -> bool:
        """Is it on its way up, live, or is its end still being recorded? Or may it live, for all that is known?"""
        supervisor = self._supervisor
        return (
            agent_id in self._launcher.starting
            or supervisor.live(agent_id) is not None
            or supervisor.unrecorded(agent_id)
            or agent_id in self._reach.agents
        )

    def _agent_type(self, wanted: str | None, task: Task) -> AgentType:
        name = wanted or task.agent_type
        if name is None:
            known = ", ".join(self.types.names())
            raise ValidationFailed("agent_type", f"The task names no agent type; give one of {known}")
        return self.types.need(name)

    async def _check_available(self, agent_type: AgentType, runtime: str) -> None:
        found = await self.types.availability(agent_type, runtime)
        if not found.ok:
            raise Unavailable(
                f"The agent {agent_type.name!r} cannot be started: {found.reason}",
                reason=found.reason,
                fix=found.fix,
                agent_type=agent_type.name,
            )

    # --- reading ------------------------------------------------------------------------------------------------------

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
        found = await self._store.events(request.after_seq, topics=(topic,), limit=request.limit, action_prefix="acp.")
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
        more = len(updates) == request.limit
        return TranscriptReply(updates=updates, next_after_seq=updates[-1].seq if more else None)

    # --- talking ------------------------------------------------------------------------------------------------------

    async def prompt(self, principal: Principal, request: AgentPrompt) -> TurnReply:
        """Queue a prompt; the task is IN_PROGRESS (again). Raises `Conflict` when the agent does not live any more."""
        blocks = to_blocks(request.prompt)
        agent = await self._living(request.agent_id)
        async with self._locks.hold(f"task:{agent.task_id}"):  # else the run's end could be judged in between
            task = await need(self._store, Task, agent.task_id)
            live = self._supervisor.live(agent.id)
            if live is None or live.ending:
                raise Conflict("The agent is ending", state=agent.status)
            await self._tasks.transition(
                task.id, "IN_PROGRESS", actor=principal.id, by_prompt=True, only_from=NOT_RUNNING
            )
            try:
                turn_id = await self._supervisor.prompt(agent.id, blocks, principal.id, request.mode)
            except KandevError:
                if task.state != "IN_PROGRESS":
                    await self._tasks.transition(
                        task.id, task.state, actor="host", reason=task.state_reason, only_from=("IN_PROGRESS",)
                    )
                raise
        return TurnReply(turn_id=turn_id)

    async def cancel(self, principal: Principal, request: AgentCancel) -> AgentReply:
        """End the running turn. Raises `Conflict` when none runs."""
        del principal
        agent = await self._living(request.agent_id)
        if not await self._supervisor.cancel(agent.id):
            raise Conflict("The agent has no running turn", state=agent.activity or agent.status)
        return AgentReply(agent=await need(self._store, AgentInstance, agent.id))

    async def _living(self, agent_id: str) -> AgentInstance:
        agent = await need(self._store, AgentInstance, agent_id)
        self._reach.check(agent.id)
        await self._launcher.settled(agent.id, START_WAIT_S)
        live = self._supervisor.live(agent.id)
        if live is None:
            agent = await need(self._store, AgentInstance, agent_id)
            raise Conflict("The agent does not run any more", state=agent.status)
        return live.agent

    # --- ending -------------------------------------------------------------------------------------------------------

    async def stop(self, principal: Principal, request: AgentStop) -> AgentReply:
        """The agent, ended. Raises `Conflict` if it had ended already."""
        reason = f"stopped by {principal.name}"
        agent = await self.end(request.agent_id, reason, actor=principal.id, force=request.force)
        return AgentReply(agent=agent)

    async def end(
        self,
        agent_id: str,
        reason: str | None,
        *,
        actor: str = "host",
        force: bool = False,
        status: AgentStatus = "STOPPED",
    ) -> AgentInstance:
        """End an agent on the behalf of a person (`actor`), on its way up or live, and wait until that is recorded.

        Raises `Conflict` if it had ended already, `Busy` if it is gone but the store does not take that yet, and
        `Unavailable` if its runtime cannot be reached.
        """
        agent = await need(self._store, AgentInstance, agent_id)
        self._reach.check(agent.id)
        if not self.alive(agent.id):
            raise Conflict("The agent does not run any more", state=agent.status)
        self.ended_by[agent.id] = actor
        try:
            if not await self._launcher.stop(agent.id, reason) and not self._supervisor.unrecorded(agent.id):
                await self._supervisor.stop(agent.id, force=force, reason=reason, status=status)
        except Conflict:
            self.ended_by.pop(agent.id, None)
            raise
        agent = await need(self._store, AgentInstance, agent.id)
        if agent.status in LIVE_STATUSES:
            raise Busy("The agent is gone; the store is locked or full, and takes its end as soon as it can")
        return agent
