"""The task group that owns all live agents. One agent that breaks, breaks alone."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

import anyio
import anyio.abc

from kandev_host.errors import Conflict, Unavailable
from kandev_host.interfaces import AgentType, ProcessSpec, Runtime
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, AgentStatus, Task
from kandev_host.sessions.audit import Looks
from kandev_host.sessions.capture import Captures
from kandev_host.sessions.counted import Tally
from kandev_host.sessions.crew import Crew, Launch, OnEnd, OnExit, OnTurnEnd, TurnPolicy
from kandev_host.sessions.dialects import dialect
from kandev_host.sessions.ending import Ending
from kandev_host.sessions.known_secrets import register_secrets
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.prompts import PromptQueue
from kandev_host.sessions.run import AgentRun
from kandev_host.sessions.stage import Equipment, Left, Resume
from kandev_host.sessions.usage import Priced
from kandev_host.settings import OrchestratorSettings, SessionSettings

NOTHING = Equipment()
SHUTDOWN_S = 8.0
FORCED_S = 5.0


class AgentSupervisor:
    """Use as an async context manager: leaving it stops every agent, within 13 s at the worst; while the store is
    locked, within RECORD_S and two of its time-outs more.

    `on_turn_end(agent, turn, outcome)`, `on_end(agent, ending, changes)` and `on_exit(agent, reason)` are set by the
    services and awaited by the run itself, in order. They may call `stop` and `prompt` of the same agent: neither
    waits for the run there. `on_end` is asked to record the changes that end the run in one commit with what follows
    for the task, and answers whether it did; else, or if it raises, they are recorded alone. `stalls` says when a
    silent agent counts as stalled, and what then. `priced` puts a price on what a turn used, if it knows one.
    `tally` is told of every message between host and agents.
    """

    def __init__(
        self,
        journal: Journal,
        broker: PermissionBroker,
        settings: SessionSettings,
        *,
        turn_policies: Sequence[TurnPolicy] = (),
        on_turn_end: OnTurnEnd | None = None,
        on_exit: OnExit | None = None,
        on_end: OnEnd | None = None,
        stalls: OrchestratorSettings | None = None,
        priced: Priced | None = None,
        captures: Captures | None = None,
        tally: Tally | None = None,
    ) -> None:
        stalls = stalls or OrchestratorSettings()
        told = (on_turn_end, on_exit, on_end)
        self._crew = Crew(journal, broker, settings, turn_policies, *told, stalls, priced, captures, tally=tally)
        self._runs: dict[str, AgentRun] = {}
        self._unrecorded: dict[str, anyio.CancelScope] = {}  # runs that are over, whose end the store refuses
        self._closing = False

    @property
    def on_turn_end(self) -> OnTurnEnd | None:
        return self._crew.on_turn_end

    @on_turn_end.setter
    def on_turn_end(self, callback: OnTurnEnd | None) -> None:
        self._crew.on_turn_end = callback

    @property
    def on_exit(self) -> OnExit | None:
        return self._crew.on_exit

    @on_exit.setter
    def on_exit(self, callback: OnExit | None) -> None:
        self._crew.on_exit = callback

    @property
    def on_end(self) -> OnEnd | None:
        return self._crew.on_end

    @on_end.setter
    def on_end(self, callback: OnEnd | None) -> None:
        self._crew.on_end = callback

    @property
    def looks(self) -> Looks | None:
        """Who tells which files of a workspace a command of an agent changed."""
        return self._crew.looks

    @looks.setter
    def looks(self, looks: Looks | None) -> None:
        self._crew.looks = looks

    async def __aenter__(self) -> AgentSupervisor:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.shutdown()
        await self._tasks.__aexit__(None, None, None)

    # --- what services call -----------------------------------------------------------------------------------------

    async def start(
        self,
        agent: AgentInstance,
        task: Task,
        agent_type: AgentType,
        runtime: Runtime,
        spec: ProcessSpec,
        *,
        first_prompt: list[dict[str, Any]] | None = None,
        created_by: str,
        situation: Situation | None = None,
        resume: Resume | None = None,
        prompts: PromptQueue | None = None,
        equipment: Equipment = NOTHING,
        left: Left | None = None,
    ) -> str | None:
        """Start an agent whose row is recorded already; returns at once, with the turn of the first prompt if any.

        Without a `situation` it must ask for everything. `prompts` are those that wait for it already. With what a host
        has `left` that died nothing is started: its process goes on.

        Raises `Unavailable` for a dialect that is not spoken and while the host shuts down, `Conflict` if it is live.
        """
        if self._closing:
            raise Unavailable("The host is shutting down")
        if agent.id in self._runs:
            raise Conflict("The agent runs already", state=agent.status)
        dialect(agent_type)
        situation = situation or Situation(agent_type=agent_type.name, task_id=task.id)
        captures = self._crew.captures
        register_secrets(agent_type, spec.env, equipment.secrets)
        run = AgentRun(
            self._crew,
            Launch(
                agent=agent,
                task=task,
                agent_type=agent_type,
                runtime=runtime,
                spec=spec,
                situation=situation,
                resume=resume,
                prompts=prompts,
                equipment=equipment,
                capture=None if captures is None else captures.of(agent.id, task.id),
                left=left,
            ),
        )
        self._runs[agent.id] = run
        try:
            turn_id = None if first_prompt is None else await run.prompt(first_prompt, created_by)
            self._tasks.start_soon(self._own, run, name=f"agent {agent.id}")
        except BaseException:
            del self._runs[agent.id]
            run.release()
            raise
        return turn_id

    async def prompt(
        self,
        agent_id: str,
        blocks: list[dict[str, Any]],
        created_by: str,
        mode: Literal["queue", "interrupt"] = "queue",
    ) -> str:
        """Queue a prompt behind the running turn, or cancel that and send it; the id of its turn.

        Raises `Conflict` if the agent does not run (any more), `Busy` when too many prompts wait.
        """
        return await self._live(agent_id).prompt(blocks, created_by, interrupt=mode == "interrupt")

    async def cancel(self, agent_id: str) -> bool:
        """Cancel the running turn and keep the agent; False if no turn runs. Raises `Conflict` if it does not run."""
        return await self._live(agent_id).cancel()

    async def stop(
        self,
        agent_id: str,
        *,
        force: bool = False,
        reason: str | None = None,
        status: AgentStatus = "STOPPED",
    ) -> AgentInstance:
        """End an agent: its turn is cancelled, its input closed, then SIGTERM, then SIGKILL; `force` kills at once.

        Returns its row when it is gone (from within its own callbacks: at once), recorded unless `unrecorded`. Raises
        `Conflict` if it does not run.
        """
        run = self._live(agent_id)
        run.end(Ending(status, reason, gently=True, force=force))
        if anyio.get_current_task().id != run.loop_task_id:
            await run.ended.wait()
        return run.agent

    def live(self, agent_id: str) -> AgentRun | None:
        """The live agent: its row, activity, session, queue and resource use. None once it has ended."""
        return self._runs.get(agent_id)

    def unrecorded(self, agent_id: str) -> bool:
        """Is its run over, and its end not recorded yet? Then its row says that it lives, until the store takes it."""
        return agent_id in self._unrecorded

    @property
    def runs(self) -> tuple[AgentRun, ...]:
        """All live agents."""
        return tuple(self._runs.values())

    async def shutdown(self, reason: str = "The host shut down") -> None:
        """Stop all agents at once, together, and refuse new ones. Their runs are STOPPED with failure "host_died"."""
        self._closing = True
        runs = self.runs
        for run in runs:
            run.end(Ending("STOPPED", reason, "host_died"))
        with anyio.move_on_after(SHUTDOWN_S) as grace:
            for run in runs:
                await run.ended.wait()
        if grace.cancelled_caught:
            for run in runs:
                run.end(Ending("STOPPED", reason, "host_died", force=True))
            with anyio.move_on_after(FORCED_S):
                for run in runs:
                    await run.ended.wait()
            self._tasks.cancel_scope.cancel()
        for scope in tuple(self._unrecorded.values()):  # what the store still refuses, the next host closes
            scope.cancel()

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _own(self, run: AgentRun) -> None:
        try:
            await run.run()
        finally:
            run.release()
            self._runs.pop(run.agent.id, None)
        if self._closing:
            return
        with anyio.CancelScope() as scope:
            self._unrecorded[run.agent.id] = scope
            try:
                await run.catch_up()
            finally:
                del self._unrecorded[run.agent.id]

    def _live(self, agent_id: str) -> AgentRun:
        run = self._runs.get(agent_id)
        if run is None:
            raise Conflict("The agent does not run", state="ended")
        return run
