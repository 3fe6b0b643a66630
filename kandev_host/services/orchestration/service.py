"""orchestrator.*: what people ask of the queue, and of a task's run."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from msgspec.structs import replace

from kandev_host.errors import Conflict, NotFound, ValidationFailed
from kandev_host.interfaces import Change, Expect, Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, AgentStatus, QueueEntry, Task, TaskState
from kandev_host.protocol.actions.agents import AgentLaunch, AgentPrompt, TurnReply
from kandev_host.protocol.actions.orchestrator import (
    OrchestratorComplete,
    OrchestratorPause,
    OrchestratorPrompt,
    OrchestratorQueue,
    OrchestratorResume,
    OrchestratorStart,
    OrchestratorStatus,
    OrchestratorStatusReply,
    OrchestratorStop,
    OrchestratorTrigger,
    QueueReply,
    RunReply,
    StoppedReply,
    TriggerReply,
)
from kandev_host.services.agents import AgentService
from kandev_host.services.locks import Locks
from kandev_host.services.network import reaching
from kandev_host.services.orchestration.dead import left_questions
from kandev_host.services.orchestration.dispatcher import Dispatcher
from kandev_host.services.orchestration.entries import in_step, new_entry, queue_event, waiting_anew
from kandev_host.services.orchestration.lease import release, taken, unchanged
from kandev_host.services.orchestration.pause import Pause
from kandev_host.services.orchestration.views import QueueViews
from kandev_host.services.prompt_queue import dropped
from kandev_host.services.rows import need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.tasks import TaskService
from kandev_host.settings import OrchestratorSettings

CONSIDERED_S = 2.0
COMPLETED = "The task was completed"


class OrchestratorService:
    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        settings: OrchestratorSettings,
        locks: Locks,
        runs: LiveRuns,
        tasks: TaskService,
        agents: AgentService,
        pause: Pause,
        views: QueueViews,
        dispatcher: Dispatcher,
    ) -> None:
        self._store = store
        self._journal = journal
        self._settings = settings
        self._locks = locks
        self._runs = runs
        self._tasks = tasks
        self._agents = agents
        self._pause = pause
        self._views = views
        self._dispatcher = dispatcher

    # --- reading ------------------------------------------------------------------------------------------------------

    async def status(self, principal: Principal, request: OrchestratorStatus) -> OrchestratorStatusReply:
        del principal, request
        return await self._views.status()

    async def queue(self, principal: Principal, request: OrchestratorQueue) -> QueueReply:
        """The entries that wait, the next one first."""
        del principal
        return await self._views.page(request)

    # --- the queue ----------------------------------------------------------------------------------------------------

    async def pause(self, principal: Principal, request: OrchestratorPause) -> OrchestratorStatusReply:
        """Start nothing from the queue, also after a restart, until `resume`; what runs goes on."""
        del request
        await self._pause.begin(principal)
        return await self._views.status()

    async def resume(self, principal: Principal, request: OrchestratorResume) -> OrchestratorStatusReply:
        del principal, request
        await self._pause.end()
        await self._dispatcher.considered(CONSIDERED_S)
        return await self._views.status()

    async def trigger(self, principal: Principal, request: OrchestratorTrigger) -> TriggerReply:
        """Queue the task now, from any state, with its attempts anew.

        Raises `Conflict` with a live agent, `NotFound` for an unknown agent type, `ValidationFailed` without any, and
        for a preset that it cannot have, `Forbidden` for one that only users may name.
        """
        self._agents.check_asker(principal, request.preset)
        if request.agent_type is not None and self._agents.types.get(request.agent_type) is None:
            raise NotFound("agent_type", request.agent_type)
        async with self._locks.hold(f"task:{request.task_id}"):
            task = await need(self._store, Task, request.task_id)
            await self._runs.check_none(task.id)
            await self._enqueue(principal, task, request)
        await self._dispatcher.considered(CONSIDERED_S)
        return await self._triggered(task.id)

    async def _enqueue(self, principal: Principal, task: Task, request: OrchestratorTrigger) -> None:
        seen = await self._store.get(QueueEntry, task.id)
        self._check_preset(task, request, seen)
        entry = self._fresh(principal, task, request, seen)
        changes: list[Change] = [Put(entry), queue_event(entry.id, entry.board_id, entry)]
        expect = [] if seen is None else unchanged(seen, taken(task.id))
        if task.state == "TODO":
            still = Expect(Task, task.id, taken(task.id), "state", ("TODO",))
            await self._journal.record(*changes, expect=[*expect, still])
        else:
            await self._tasks.transition(task.id, "TODO", actor=principal.id, also=changes, expect=expect)

    def _check_preset(self, task: Task, request: OrchestratorTrigger, seen: QueueEntry | None) -> None:
        """Now, while somebody is there to be told; and again when it is started."""
        name = request.agent_type or (seen.agent_type if seen is not None else None) or task.agent_type
        found = None if name is None else self._agents.types.get(name)
        if request.preset is not None and found is not None:
            runtime = found.runtime or self._agents.types.default_runtime
            self._agents.check_preset(request.preset, reaching(found, task), runtime, task)

    def _fresh(
        self, principal: Principal, task: Task, request: OrchestratorTrigger, seen: QueueEntry | None
    ) -> QueueEntry:
        """Its place in the queue is kept, if it has one."""
        if request.agent_type is None and task.agent_type is None and (seen is None or not seen.pinned):
            raise ValidationFailed("agent_type", "The task names no agent type; give one")
        entry = new_entry(
            task,
            self._settings.ageing_s,
            principal.id,
            agent_type=request.agent_type,
            preset=request.preset,
        )
        if seen is None:
            return entry
        changes = {"agent_type": entry.agent_type, "pinned": True} if request.agent_type is not None else {}
        anew = waiting_anew(seen)
        return in_step(
            replace(anew, preset=request.preset or anew.preset, created_by=principal.id, **changes),
            task,
            self._settings.ageing_s,
        )

    async def _triggered(self, task_id: str) -> TriggerReply:
        task = await need(self._store, Task, task_id)
        entry = await self._store.get(QueueEntry, task_id)
        agent = None
        if entry is not None and entry.agent_id is not None:
            agent = await self._store.get(AgentInstance, entry.agent_id)
        return TriggerReply(task=task, entry=None if entry is None else await self._views.one(entry), agent=agent)

    # --- runs ---------------------------------------------------------------------------------------------------------

    async def start(self, principal: Principal, request: OrchestratorStart) -> RunReply:
        """Run the task's agent now, on its title and description, until the turn ends. Raises as `AgentService.begin`.

        It waits neither for other tasks nor for capacity, and takes the task out of the queue if it waits there; what
        follows a failure is the queue's again.
        """
        launch = AgentLaunch(task_id=request.task_id, agent_type=request.agent_type, preset=request.preset)
        task, agent = await self._agents.begin(principal, launch, orchestrated=True)
        return RunReply(task=task, agent=agent)

    async def stop(self, principal: Principal, request: OrchestratorStop) -> StoppedReply:
        """The task CANCELLED, out of the queue, and its agent ended. Raises `Conflict` for a finished task."""
        reason = request.reason or f"stopped by {principal.name}"
        return await self._finish(principal, request.task_id, "CANCELLED", reason)

    async def complete(self, principal: Principal, request: OrchestratorComplete) -> StoppedReply:
        """The task COMPLETED, out of the queue, and its agent ended. Raises `Conflict` for a finished task."""
        return await self._finish(principal, request.task_id, "COMPLETED", None)

    async def _finish(self, principal: Principal, task_id: str, state: TaskState, reason: str | None) -> StoppedReply:
        """The state first: so the end of the agent changes nothing more."""
        with anyio.CancelScope(shield=True):  # also when the caller is gone meanwhile
            async with self._locks.hold(f"task:{task_id}"):
                entry = await self._store.get(QueueEntry, task_id)
                live = await self._runs.of_task(task_id)
                left = await dropped(self._store, self._journal, task_id, reason or COMPLETED, but=live)
                left += await left_questions(self._store, task_id, reason or COMPLETED)
                task = await self._tasks.transition(
                    task_id,
                    state,
                    actor=principal.id,
                    reason=reason,
                    also=(*left, *(() if entry is None else release(entry))),
                    expect=() if entry is None else unchanged(entry, taken(task_id)),
                )
            status: AgentStatus = "COMPLETED" if state == "COMPLETED" else "STOPPED"
            agent = await self._end(await self._runs.of_task(task.id), reason, status, principal.id)
        return StoppedReply(task=task, agent=agent)

    async def _end(
        self, agents: Sequence[AgentInstance], reason: str | None, status: AgentStatus, actor: str
    ) -> AgentInstance | None:
        ended = None
        for agent in agents:
            try:
                ended = await self._agents.end(agent.id, reason, actor=actor, status=status)
            except Conflict:
                ended = await self._store.get(AgentInstance, agent.id)  # it was faster
        return ended

    async def prompt(self, principal: Principal, request: OrchestratorPrompt) -> TurnReply:
        """Prompt the task's live agent. Raises `Conflict` when it has none."""
        task = await need(self._store, Task, request.task_id)
        live = await self._runs.of_task(task.id)
        if not live:
            raise Conflict("The task has no live agent", state=task.state)
        return await self._agents.prompt(principal, AgentPrompt(agent_id=live[0].id, prompt=request.prompt))
