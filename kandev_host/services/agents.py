"""Agents: which there are, starting them, talking to them, ending them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from kandev_host.errors import Conflict, NotFound, Unavailable, ValidationFailed
from kandev_host.interfaces import AgentType, Availability, Op, Principal, Put, Stats, Store
from kandev_host.models import AgentInstance, AgentLog, AgentStatus, LogLevel, Session, Task, TaskState
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
    AgentTypeInfo,
    AgentTypes,
    AgentTypesReply,
    AvailabilityInfo,
    LogsReply,
    ResourceUse,
    TranscriptEntry,
    TranscriptReply,
    TurnReply,
)
from kandev_host.services.availability import agent_availability
from kandev_host.services.launcher import Launch, Launcher, agent_event
from kandev_host.services.launches import merge_limits
from kandev_host.services.locks import Locks
from kandev_host.services.prompts import to_blocks
from kandev_host.services.rows import need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.supervision import Supervisor
from kandev_host.services.tasks import TaskService
from kandev_host.services.usage import UsageService
from kandev_host.services.workspaces import WorkspaceService

START_WAIT_S = 55.0
PROBE_KEPT_S = 60.0
LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")
NOT_RUNNING: tuple[TaskState, ...] = ("TODO", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED")


class AgentService:
    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        *,
        agent_types: Mapping[str, AgentType],
        default_runtime: str,
        locks: Locks,
        runs: LiveRuns,
        tasks: TaskService,
        workspaces: WorkspaceService,
        launcher: Launcher,
        usage: UsageService,
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._agent_types = agent_types
        self._default_runtime = default_runtime
        self._locks = locks
        self._runs = runs
        self._tasks = tasks
        self._workspaces = workspaces
        self._launcher = launcher
        self._usage = usage
        self.ended_by_person: set[str] = set()  # until their exit is judged, even if whoever asked went away
        self._probed: dict[str, tuple[float, Availability]] = {}
        runs.stop = self.end

    # --- types --------------------------------------------------------------------------------------------------------

    async def types(self, principal: Principal, request: AgentTypes) -> AgentTypesReply:
        """All types by name, each with whether it can be started here and what to do if not."""
        del principal, request
        names = sorted(self._agent_types)
        return AgentTypesReply(agent_types=[await self._describe(self._agent_types[name]) for name in names])

    async def _describe(self, agent_type: AgentType) -> AgentTypeInfo:
        runtime = agent_type.runtime or self._default_runtime
        found = await self.availability(agent_type, runtime)
        return AgentTypeInfo(
            name=agent_type.name,
            title=agent_type.title,
            description=agent_type.description,
            runtime=runtime,
            image=agent_type.image,
            command=list(agent_type.command),
            network=agent_type.network,
            allow=list(agent_type.allow),
            hosts=list(agent_type.hosts),
            env_required=list(agent_type.env_required),
            capabilities=list(agent_type.capabilities),
            default_resources=agent_type.default_resources,
            install_hint=agent_type.install_hint,
            enabled=agent_type.enabled,
            availability=AvailabilityInfo(ok=found.ok, reason=found.reason, fix=found.fix),
        )

    async def availability(self, agent_type: AgentType, runtime_name: str) -> Availability:
        """Whether it can be started; a runtime that was well is not probed again for a minute."""
        runtime = self._workspaces.runtimes.get(runtime_name)
        kept = self._probed.get(runtime_name)
        if runtime is None:
            return await agent_availability(agent_type, None, runtime_name)
        if kept is None or time.monotonic() - kept[0] > PROBE_KEPT_S or not kept[1].ok:
            kept = self._probed[runtime_name] = (time.monotonic(), await runtime.probe())
        return await agent_availability(agent_type, runtime, runtime_name, kept[1])

    # --- launch -------------------------------------------------------------------------------------------------------

    async def launch(self, principal: Principal, request: AgentLaunch) -> AgentReply:
        """Start an agent that waits for prompts. Raises as `begin`."""
        _, agent = await self.begin(principal, request, orchestrated=False)
        return AgentReply(agent=agent)

    async def begin(
        self, principal: Principal, request: AgentLaunch, *, orchestrated: bool
    ) -> tuple[Task, AgentInstance]:
        """A PENDING agent whose workspace and process are being made; what fails from here on is in its status.

        Raises `NotFound`, `ValidationFailed` (also for a repository that cannot be one), `Unavailable`, `Conflict`.
        """
        task = await need(self._store, Task, request.task_id)
        agent_type = self._agent_type(request.agent_type, task)
        blocks = None if request.prompt is None else to_blocks(request.prompt)
        runtime = request.runtime or agent_type.runtime or self._default_runtime
        limits = merge_limits(agent_type.default_resources, request.resources)
        self._workspaces.runtime(runtime)
        await self._check_available(agent_type, runtime)
        async with self._locks.hold(f"task:{task.id}"):
            live = await self._runs.of_task(task.id)
            if live:
                raise Conflict("The task has a live agent", state=live[0].status, agent_id=live[0].id)
            task = await need(self._store, Task, task.id)
            await self._workspaces.check(task, runtime)
            agent = AgentInstance(
                task_id=task.id,
                agent_type=agent_type.name,
                runtime=runtime,
                activity="starting",
                orchestrated=orchestrated,
                image_name=agent_type.image,
                resource_limits=limits,
            )
            with anyio.CancelScope(shield=True):  # never a PENDING row that nobody brings up
                task = await self._tasks.transition(
                    task.id,
                    "IN_PROGRESS",
                    actor=principal.id,
                    by_prompt=blocks is not None,
                    assigned_agent_id=agent.id,
                    also=(Put(agent), agent_event(agent, task.board_id, principal.id)),
                )
                self._launcher.begin(
                    Launch(
                        agent=agent,
                        task=task,
                        agent_type=agent_type,
                        blocks=blocks,
                        created_by=principal.id,
                        preset=request.preset,
                    )
                )
        return task, agent

    def _agent_type(self, wanted: str | None, task: Task) -> AgentType:
        name = wanted or task.agent_type
        known = sorted(self._agent_types)
        if name is None:
            raise ValidationFailed("agent_type", f"The task names no agent type; give one of {', '.join(known)}")
        found = self._agent_types.get(name)
        if found is None:
            raise NotFound("agent_type", name, known=known)
        return found

    async def _check_available(self, agent_type: AgentType, runtime: str) -> None:
        found = await self.availability(agent_type, runtime)
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
        await self._tasks.transition(
            agent.task_id, "IN_PROGRESS", actor=principal.id, by_prompt=True, only_from=NOT_RUNNING
        )
        turn_id = await self._supervisor.prompt(agent.id, blocks, principal.id, request.mode)
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
        await self._launcher.settled(agent.id, START_WAIT_S)
        live = self._supervisor.live(agent.id)
        if live is None:
            agent = await need(self._store, AgentInstance, agent_id)
            raise Conflict("The agent does not run any more", state=agent.status)
        return live.agent

    # --- ending -------------------------------------------------------------------------------------------------------

    async def stop(self, principal: Principal, request: AgentStop) -> AgentReply:
        """The agent, ended. Raises `Conflict` if it had ended already."""
        agent = await self.end(request.agent_id, f"stopped by {principal.name}", force=request.force)
        return AgentReply(agent=agent)

    async def end(
        self, agent_id: str, reason: str | None, *, force: bool = False, status: AgentStatus = "STOPPED"
    ) -> AgentInstance:
        """End an agent on a person's behalf, on its way up or live, and wait until that is recorded."""
        agent = await need(self._store, AgentInstance, agent_id)
        if not await self._launcher.stop(agent.id, reason):
            if self._supervisor.live(agent.id) is None:
                raise Conflict("The agent does not run any more", state=agent.status)
            self.ended_by_person.add(agent.id)
            try:
                await self._supervisor.stop(agent.id, force=force, reason=reason, status=status)
            except Conflict:
                self.ended_by_person.discard(agent.id)
                raise
        return await need(self._store, AgentInstance, agent.id)
