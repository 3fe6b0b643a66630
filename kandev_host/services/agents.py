"""Agents: which there are, starting them, talking to them, ending them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import anyio
import msgspec

from kandev_host.errors import Busy, Conflict, KandevError, Unavailable, ValidationFailed
from kandev_host.interfaces import AgentType, Change, Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import (
    LIVE_STATUSES,
    AgentInstance,
    AgentLog,
    AgentStatus,
    Limits,
    QueueEntry,
    Task,
    TaskState,
)
from kandev_host.protocol.actions.agents import (
    AgentCancel,
    AgentLaunch,
    AgentPrompt,
    AgentReply,
    AgentResume,
    AgentStop,
    TurnReply,
)
from kandev_host.services.agent_types import AgentTypeService
from kandev_host.services.launcher import Launch, Launcher, agent_event
from kandev_host.services.launches import merge_limits
from kandev_host.services.locks import Locks
from kandev_host.services.network import reaching
from kandev_host.services.orchestration.lease import Claim, Leases, taken
from kandev_host.services.prompt_queue import hand_over
from kandev_host.services.prompts import task_prompt, to_blocks
from kandev_host.services.reach import Reach
from kandev_host.services.resume import Past, Resumer, expiry, kept_situation
from kandev_host.services.rows import need
from kandev_host.services.rules import check_asker, check_preset
from kandev_host.services.runs import LiveRuns
from kandev_host.services.supervision import Supervisor
from kandev_host.services.tasks import TaskService
from kandev_host.services.usage import UsageService
from kandev_host.services.users import HOST
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.presets import Preset
from kandev_host.sessions.prompt_content import fit_prompt
from kandev_host.settings import PermissionSettings

log = logging.getLogger(__name__)
START_WAIT_S = 55.0
NOT_RUNNING: tuple[TaskState, ...] = ("TODO", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED")


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to launch. `prompt` is what they say to it at once."""

    agent_type: AgentType
    runtime: str
    prompt: list[dict[str, Any]] | None
    limits: Limits
    situation: Situation
    orchestrated: bool
    created_by: str


class AgentService:
    def __init__(
        self,
        store: Store,
        journal: Journal,
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
        permissions: PermissionSettings,
    ) -> None:
        self._store = store
        self._journal = journal
        self._supervisor = supervisor
        self._locks = locks
        self._runs = runs
        self._tasks = tasks
        self._workspaces = workspaces
        self._launcher = launcher
        self._leases = leases
        self._reach = reach
        self._resumer = Resumer(store, usage)
        self._permissions = permissions
        self.types = types
        self.ended_by: dict[str, str] = {}  # agent → who ended it, until that is judged, even if they went away
        runs.stop = self.end

    # --- launch -------------------------------------------------------------------------------------------------------

    async def launch(self, principal: Principal, request: AgentLaunch) -> AgentReply:
        """Start an agent that waits for prompts. Raises as `begin`."""
        _, agent = await self.begin(principal, request, orchestrated=False)
        return AgentReply(agent=agent)

    async def resume(self, principal: Principal, request: AgentResume) -> AgentReply:
        """A new run that goes on with the session of one that ended, or with what was said there; what waited for that
        one waits for it, and `prompt` behind that.

        Raises `Conflict` while that one lives or if there is nothing to go on with, and as `begin`.
        """
        agent = await need(self._store, AgentInstance, request.agent_id)
        if self.alive(agent.id) or agent.status in LIVE_STATUSES:
            raise Conflict("The agent runs; prompt it instead", state=agent.status, agent_id=agent.id)
        past = await self._resumer.need(agent)
        _, resumed = await self.begin(principal, _same(agent, request.prompt), orchestrated=False, past=past)
        return AgentReply(agent=resumed)

    async def go_on(self, agent: AgentInstance) -> bool:
        """Begin the run that sends the prompt with which a person interrupted this one, which would not stop for it.

        False, and a line in the log, if it cannot be begun; then the prompt waits.
        """
        try:
            past = await self._resumer.need(agent, interrupted=True)
            await self.begin(HOST, _same(agent), orchestrated=agent.orchestrated, past=past)
        except KandevError as error:
            log.warning("agent %s was interrupted, and could not be resumed: %s", agent.id, error.message)
            return False
        return True

    async def begin(
        self,
        principal: Principal,
        request: AgentLaunch,
        *,
        orchestrated: bool,
        seen: QueueEntry | None = None,
        past: Past | None = None,
        counted_at: int | None = None,
    ) -> tuple[Task, AgentInstance]:
        """A PENDING agent whose workspace and process are being made; what fails from here on is in its status.

        Agent, task, lease and waiting prompts are claimed in one commit. `seen` is the entry that the queue starts; a
        person claims whatever is there. `past` is the run that this one goes on with. `counted_at` is when the queue
        counted (`Starts`); an agent that somebody started since is `Outrun`. Raises `NotFound`,
        `ValidationFailed` (also for a repository that cannot be one), `Unavailable`, `Conflict`.
        """
        asked = await self._asked(principal, request, orchestrated=orchestrated)
        async with self._locks.hold(f"task:{request.task_id}"):
            await self._runs.check_none(request.task_id)
            task = await need(self._store, Task, request.task_id)
            entry = await self._store.get(QueueEntry, task.id)
            if seen is not None and (entry != seen or await self._blocked(task)):
                raise taken(task.id)  # it changed since the queue looked, which looks again
            await self._workspaces.check(task, asked.runtime)
            attempt = 1 if seen is None or entry is None else entry.attempt + 1
            launch, changes = await self._launch(asked, task, past or await self._resumer.after(seen), attempt)
            with anyio.CancelScope(shield=True):  # never a PENDING row that nobody brings up
                claim = self._claim(principal, request, launch, entry, queued=seen is not None)
                with self._runs.starts.one(counted_at):
                    launch.task = await self._take(launch, claim, changes)
                self._launcher.begin(launch)
        return launch.task, launch.agent

    async def _asked(self, principal: Principal, request: AgentLaunch, *, orchestrated: bool) -> _Asked:
        """What is to be launched, if it can be. Raises as `begin`."""
        task = await need(self._store, Task, request.task_id)
        agent_type = reaching(self._agent_type(request.agent_type, task), task)
        runtime = request.runtime or agent_type.runtime or self.types.default_runtime
        check_asker(principal, request.preset, self._permissions)
        asked = _Asked(
            agent_type=agent_type,
            runtime=runtime,
            prompt=None if request.prompt is None else to_blocks(request.prompt),
            limits=merge_limits(agent_type.default_resources, request.resources),
            situation=self.check_preset(request.preset, agent_type, runtime, task),
            orchestrated=orchestrated,
            created_by=principal.id,
        )
        await self._check_available(agent_type, runtime)
        self._launcher.check_open()
        return asked

    async def _launch(
        self, asked: _Asked, task: Task, past: Past | None, attempt: int
    ) -> tuple[Launch, Sequence[Change]]:
        """The launch, and what its commit changes of the prompts that wait."""
        situation, resume = asked.situation, None
        if past is not None:
            place, resume = self._workspaces.runtime(asked.runtime), past.resume
            situation = kept_situation(past.agent, situation, asked.agent_type, place, self._permissions)
        agent = AgentInstance(
            task_id=task.id,
            agent_type=asked.agent_type.name,
            runtime=asked.runtime,
            activity="starting",
            orchestrated=asked.orchestrated,
            resource_limits=asked.limits,
            attempt=attempt,
            resumed_from=None if resume is None else resume.session.agent_id,
            preset=situation.preset,
            preset_expires_at=expiry(situation),
            network=asked.agent_type.network if situation.jailed else "host",
        )
        own = task_prompt(task) if asked.orchestrated else asked.prompt
        handover = await hand_over(self._store, self._journal, agent, past, own, asked.created_by)
        launch = Launch(
            agent=agent,
            task=task,
            agent_type=asked.agent_type,
            prompts=handover.queue,
            created_by=asked.created_by,
            situation=situation,
            resume=resume,
        )
        return launch, handover.changes

    def check_preset(self, preset: Preset | None, agent_type: AgentType, runtime: str, task: Task) -> Situation:
        """What an agent that is launched now may do without asking.

        Raises `ValidationFailed` for a preset that it cannot have, and for an unknown runtime.
        """
        place, outward = self._workspaces.runtime(runtime), self._launcher.outward(agent_type, task)
        return check_preset(preset, agent_type, place, task_id=task.id, outward=outward, settings=self._permissions)

    def check_asker(self, principal: Principal, preset: Preset | None) -> None:
        """Raises `Forbidden` for a preset that only users may name."""
        check_asker(principal, preset, self._permissions)

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

    async def _take(self, launch: Launch, claim: Claim, prompts: Sequence[Change]) -> Task:
        """The task, IN_PROGRESS and assigned. Raises `Conflict` when somebody was faster."""
        agent, task = launch.agent, launch.task
        note = launch.situation.note
        told = [] if note is None else [Put(AgentLog(agent_instance_id=agent.id, log_level="warning", message=note))]
        task = await self._tasks.transition(
            task.id,
            "IN_PROGRESS",
            actor=launch.created_by,
            by_prompt=bool(launch.prompts.waiting) or launch.resume is not None,
            only_from=claim.only_from,
            assigned_agent_id=agent.id,
            also=(Put(agent), *told, agent_event(agent, task.board_id, launch.created_by), *prompts, *claim.changes),
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

    # --- talking ------------------------------------------------------------------------------------------------------

    async def prompt(self, principal: Principal, request: AgentPrompt) -> TurnReply:
        """Queue a prompt; the task is IN_PROGRESS (again).

        Raises `Conflict` when the agent does not live any more, `ValidationFailed` for content that it does not take.
        """
        blocks = to_blocks(request.prompt)
        agent = await self._living(request.agent_id)
        async with self._locks.hold(f"task:{agent.task_id}"):  # else the run's end could be judged in between
            task = await need(self._store, Task, agent.task_id)
            live = self._supervisor.live(agent.id)
            if live is None or live.ending:
                raise Conflict("The agent is ending", state=agent.status)
            if live.session is not None:
                fit_prompt(blocks, live.session.agent_capabilities)  # it is fitted when it is sent: here, to refuse it
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
            fix = f"go on with it by kandev-host agent resume {agent.id} (the action agent.resume)"
            raise Conflict("The agent does not run any more", state=agent.status, fix=fix)
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


def _same(agent: AgentInstance, prompt: str | list[dict[str, Any]] | None = None) -> AgentLaunch:
    """The launch that follows this run, with the limits that it had."""
    kind, limits = agent.agent_type, agent.resource_limits
    return AgentLaunch(task_id=agent.task_id, agent_type=kind, runtime=agent.runtime, prompt=prompt, resources=limits)
