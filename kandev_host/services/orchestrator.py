"""What runs of agents mean for their tasks: starting and ending them on a task's behalf, and judging their ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio

from kandev_host.errors import Conflict, KandevError
from kandev_host.interfaces import Principal, Store
from kandev_host.models import AgentInstance, AgentStatus, Task, TaskState, Turn
from kandev_host.protocol.actions.agents import (
    AgentLaunch,
    AgentPrompt,
    OrchestratorComplete,
    OrchestratorPrompt,
    OrchestratorStart,
    OrchestratorStop,
    RunReply,
    StoppedReply,
    TurnReply,
)
from kandev_host.services.agents import AgentService
from kandev_host.services.prompts import task_prompt
from kandev_host.services.rows import need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.tasks import TaskService
from kandev_host.sessions.turns import TurnOutcome, TurnResult

log = logging.getLogger(__name__)

RUNNING: tuple[TaskState, ...] = ("IN_PROGRESS",)
UNFINISHED: tuple[TaskState, ...] = ("IN_PROGRESS", "BLOCKED")

_VERDICTS: dict[TurnResult, tuple[TaskState, str | None]] = {
    "completed": ("COMPLETED", None),
    "refused": ("BLOCKED", "The agent refused to go on"),
    "max_tokens": ("BLOCKED", "The agent reached its limit of tokens"),
    "max_turn_requests": ("BLOCKED", "The agent reached its limit of requests in one turn"),
    "cancelled": ("BLOCKED", "The agent gave up its turn although nobody had cancelled it"),
}


def verdict(agent: AgentInstance, outcome: TurnOutcome) -> tuple[TaskState, str | None] | None:
    """The task's state after a turn, and why; None to leave it as it is.

    A cancel that somebody asked for leaves the task and its agent as they are, and a run that is not orchestrated
    ends no task by itself: only what needs a person is told (docs/protocol.md: allowed task transitions). A failed
    turn ends an orchestrated run, and the run's end is what fails the task: it alone knows whether someone ended it.
    """
    found = None if outcome.asked_to_cancel else _VERDICTS.get(outcome.result)
    if found is None or (found[0] == "COMPLETED" and not agent.orchestrated):
        return None
    return found[0], outcome.error or found[1]


class OrchestratorService:
    def __init__(self, store: Store, *, runs: LiveRuns, tasks: TaskService, agents: AgentService) -> None:
        self._store = store
        self._runs = runs
        self._tasks = tasks
        self._agents = agents

    async def start(self, principal: Principal, request: OrchestratorStart) -> RunReply:
        """Run the task's agent on its title and description until the turn ends. Raises as `AgentService.begin`."""
        task = await need(self._store, Task, request.task_id)
        launch = AgentLaunch(
            task_id=task.id, agent_type=request.agent_type, prompt=task_prompt(task), preset=request.preset
        )
        task, agent = await self._agents.begin(principal, launch, orchestrated=True)
        return RunReply(task=task, agent=agent)

    async def stop(self, principal: Principal, request: OrchestratorStop) -> StoppedReply:
        """The task CANCELLED and its agent ended. Raises `Conflict` for a finished task."""
        reason = request.reason or f"stopped by {principal.name}"
        return await self._finish(principal, request.task_id, "CANCELLED", reason)

    async def complete(self, principal: Principal, request: OrchestratorComplete) -> StoppedReply:
        """The task COMPLETED and its agent ended. Raises `Conflict` for a finished task."""
        return await self._finish(principal, request.task_id, "COMPLETED", None)

    async def _finish(self, principal: Principal, task_id: str, state: TaskState, reason: str | None) -> StoppedReply:
        """The state first: so the end of the agent changes nothing more."""
        with anyio.CancelScope(shield=True):  # also when the caller is gone meanwhile
            task = await self._tasks.transition(task_id, state, actor=principal.id, reason=reason)
            status: AgentStatus = "COMPLETED" if state == "COMPLETED" else "STOPPED"
            agent = await self._end(await self._runs.of_task(task.id), reason, status)
        return StoppedReply(task=task, agent=agent)

    async def _end(
        self, agents: Sequence[AgentInstance], reason: str | None, status: AgentStatus
    ) -> AgentInstance | None:
        ended = None
        for agent in agents:
            try:
                ended = await self._agents.end(agent.id, reason, status=status)
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

    # --- called by the supervisor ---------------------------------------------------------------------------------

    async def on_turn_end(self, agent: AgentInstance, turn: Turn, outcome: TurnOutcome) -> None:
        """Give the task the state that the turn's end means; never against what a person decided meanwhile."""
        del turn
        found = verdict(agent, outcome)
        if found is not None:
            state, reason = found
            await self._conclude(agent, state, reason, RUNNING)

    async def on_exit(self, agent: AgentInstance, reason: str | None) -> None:
        """A dead agent fails its task. A stopped run is cancelled by a person, or failed by a host that shuts down."""
        reason = reason or agent.error_message
        by_person = agent.id in self._agents.ended_by_person
        self._agents.ended_by_person.discard(agent.id)
        if agent.status == "FAILED":
            await self._conclude(agent, "FAILED", reason or "The agent died", UNFINISHED)
        elif agent.status == "STOPPED" and agent.orchestrated:
            await self._conclude(agent, "CANCELLED" if by_person else "FAILED", reason, UNFINISHED)

    async def _conclude(
        self, agent: AgentInstance, state: TaskState, reason: str | None, only_from: Sequence[TaskState]
    ) -> None:
        task = await self._store.get(Task, agent.task_id)
        if task is None or task.assigned_agent_id != agent.id:
            return
        try:
            await self._tasks.transition(task.id, state, actor=agent.id, reason=reason, only_from=only_from)
        except KandevError as error:
            log.error("task %s could not become %s: %s", task.id, state, error.message)
