"""Going on with agents that outlived the host which had started them: the same process, session and turn.

Where that cannot be, the reason is told, and the run ends as any other of a dead host does.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

import anyio
import msgspec

from kandev_host.errors import KandevError, Unavailable
from kandev_host.interfaces import Op, Owned, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.models import (
    AgentInstance,
    Elicitation,
    HostState,
    PermissionRequest,
    Session,
    Task,
    Turn,
)
from kandev_host.services.agents import AgentService
from kandev_host.services.credentials.handed import NOTHING
from kandev_host.services.launcher import Launcher
from kandev_host.services.network import reaching
from kandev_host.services.prompt_queue import waiting_for
from kandev_host.services.resume import Resumer, kept_situation
from kandev_host.services.rows import every
from kandev_host.services.supervision import Supervisor
from kandev_host.services.usage import UsageService
from kandev_host.sessions.prompts import PromptQueue
from kandev_host.sessions.stage import Left, Question
from kandev_host.sessions.usage import Standing
from kandev_host.sessions.wire import WireState, read_state, state_id
from kandev_host.settings import PermissionSettings

log = logging.getLogger(__name__)
LOOK_S = 4.0
TAKE_S = 20.0
KNOWN_S = 10.0
TURNS = 200  # that are looked back on: prompts that wait come first


class Taken(msgspec.Struct):
    """The `agents` (by id) that this host goes on with, and why it does not with others."""

    agents: set[str] = msgspec.field(default_factory=set)
    refused: dict[str, str] = msgspec.field(default_factory=dict)


class NotTaken(Exception):
    """The text says why."""


class Adoption:
    def __init__(
        self,
        store: Store,
        journal: Journal,
        supervisor: Supervisor,
        *,
        agents: AgentService,
        launcher: Launcher,
        usage: UsageService,
        permissions: PermissionSettings,
    ) -> None:
        self._store = store
        self._journal = journal
        self._supervisor = supervisor
        self._agents = agents
        self._launcher = launcher
        self._usage = usage
        self._resumer = Resumer(store, usage)
        self._permissions = permissions

    async def take_over(self, runtimes: Mapping[str, Runtime]) -> Taken:
        """All agents of dead hosts that still run there and can be gone on with, at once.

        Returns when what they were doing is known again, so that whoever asks from then on finds it.
        """
        taken, left = Taken(), defaultdict[str, list[tuple[AgentInstance, HostState]]](list)
        async for agent in every(self._store, AgentInstance, [("status", "=", "RUNNING")]):
            row = await self._store.get(HostState, state_id(agent.id)) if agent.runtime in runtimes else None
            if row is not None:  # else its process does not outlive its host
                left[agent.runtime].append((agent, row))
        async with anyio.create_task_group() as tasks:
            for name, agents in left.items():
                tasks.start_soon(self._take_all, name, runtimes[name], agents, taken)
        return taken

    async def _take_all(
        self, name: str, runtime: Runtime, agents: Sequence[tuple[AgentInstance, HostState]], taken: Taken
    ) -> None:
        owned: list[Owned] = []
        with anyio.move_on_after(LOOK_S):
            try:
                owned = await runtime.list_owned()
            except Exception as error:  # a plugin's own fault too: the recovery says so
                log.debug("the runtime %s does not say what runs: %s", name, error)
        running = {each.ref for each in owned if each.running}
        async with anyio.create_task_group() as tasks:
            for agent, row in agents:
                if agent.process_ref in running:
                    tasks.start_soon(self._take, agent, runtime, row, taken)

    async def _take(self, agent: AgentInstance, runtime: Runtime, row: HostState, taken: Taken) -> None:
        why = f"that took longer than {TAKE_S:g} s"
        try:
            with anyio.move_on_after(TAKE_S):
                await self._take_one(agent, runtime, read_state(row), taken)
        except NotTaken as error:
            why = str(error)
        except KandevError as error:
            why = error.message
        except Exception as error:
            log.exception("agent %s could not be taken over", agent.id)
            why = f"the host failed: {type(error).__name__}"
        if agent.id in taken.agents:
            return
        log.warning("agent %s, which outlived its host, is not gone on with: %s", agent.id, why)
        taken.refused[agent.id] = why

    async def _take_one(self, agent: AgentInstance, runtime: Runtime, wire: WireState | None, taken: Taken) -> None:
        if wire is None:
            raise NotTaken("another version of the host has recorded where it stood")
        task, session, turn = await self._rows(agent, wire)
        ended = None if turn is not None else await self._ended(agent, task)
        if agent.activity == "stopping" and not (agent.orchestrated and ended is not None and ended.state == "ended"):
            raise NotTaken("it was being ended")
        questions = await self._questions(wire)
        agent_type = reaching(self._agents.types.need(agent.agent_type), task)
        if agent_type.credentials or task.credentials:
            raise NotTaken("it was handed credentials, which ended with its host")
        anew = self._agents.check_preset(None, agent_type, agent.runtime, task)
        situation = kept_situation(agent, anew, agent_type, runtime, self._permissions)
        spec, equipment = await self._launcher.outfit(agent, task, agent_type, situation, NOTHING, runs=True)
        standing = await self._usage.standing([agent.id])
        resumed = await self._resumed(agent, session)
        prompts = PromptQueue(self._journal, agent, await waiting_for(self._store, agent.id))
        process = await runtime.adopt(agent.process_ref or "", wire.replay)
        if process is None:
            raise NotTaken("its runtime refused, by its settings or because what it wrote is no longer whole")
        left = Left(
            process=process,
            session=session,
            wire=wire,
            turn=turn,
            ended=ended,
            questions=questions,
            standing=standing,
            resumed=resumed,
        )
        try:
            await self._supervisor.start(
                agent=agent,
                task=task,
                agent_type=agent_type,
                runtime=runtime,
                spec=spec,
                prompts=prompts,
                created_by=task.created_by,
                situation=situation,
                equipment=equipment,
                left=left,
            )
        except BaseException:
            with anyio.CancelScope(shield=True):
                await process.kill()
            raise
        taken.agents.add(agent.id)
        log.info("agent %s outlived its host, and goes on", agent.id)
        live = self._supervisor.live(agent.id)
        if live is not None:
            with anyio.move_on_after(KNOWN_S):
                await live.known.wait()

    async def _rows(self, agent: AgentInstance, wire: WireState) -> tuple[Task, Session, Turn | None]:
        task = await self._store.get(Task, agent.task_id)
        session = None if agent.session_id is None else await self._store.get(Session, agent.session_id)
        if task is None or session is None or session.closed_at is not None:
            raise NotTaken("its task or its session is gone")
        mine: list[tuple[str, Op, object]] = [("agent_id", "=", agent.id)]
        turns = (await self._store.find(Turn, [*mine, ("state", "=", "running")], limit=2)).rows
        if [turn.id for turn in turns] != [each for each in (wire.turn_id,) if each is not None]:
            raise NotTaken("its turn is not the one that was recorded")
        if turns and not wire.sent:
            raise NotTaken("the host died as it sent the prompt, so nobody knows whether the agent has it")
        begun = bool(turns) or await self._store.count(Turn, [*mine, ("state", "in", ("ended", "failed", "cancelled"))])
        if session.opened != "new" and not begun:
            raise NotTaken("it had not been told yet what it goes on with")
        return task, session, turns[0] if turns else None

    async def _ended(self, agent: AgentInstance, task: Task) -> Turn | None:
        """The last turn, if what it means for the run or its task may not be recorded yet."""
        if not agent.orchestrated and (task.state, task.assigned_agent_id) != ("IN_PROGRESS", agent.id):
            return None
        found = self._store.find(Turn, [("agent_id", "=", agent.id)], order=("-created_at", "-id"), limit=TURNS)
        over = [turn for turn in (await found).rows if turn.started_at is not None and turn.ended_at is not None]
        return max(over, key=lambda turn: turn.ended_at or turn.created_at, default=None)

    async def _questions(self, wire: WireState) -> dict[str, Question]:
        found: dict[str, Question] = {}
        for id in [request.row_id for request in wire.requests if request.row_id is not None]:
            row: Question | None = await self._store.get(PermissionRequest, id)
            row = row or await self._store.get(Elicitation, id)
            if row is None:
                raise NotTaken("a question that it waits for is gone")
            found[id] = row
        return found

    async def _resumed(self, agent: AgentInstance, session: Session) -> Standing | None:
        """Where the session stood with which this run went on."""
        if agent.resumed_from is None or session.opened not in ("resume", "load"):
            return None
        before = await self._store.get(AgentInstance, agent.resumed_from)
        if before is None:
            raise Unavailable("the run that it went on with is gone")
        past = (await self._resumer.need(before)).resume
        return None if past is None else past.standing
