"""Bringing agents up: workspace, files, process. In the background, since a clone may take minutes."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import anyio.abc
import msgspec
from msgspec.structs import replace

from kandev_host import tracing
from kandev_host.errors import Busy, Conflict, KandevError, Misconfigured, StorageFull, TimedOut, Unavailable
from kandev_host.events import Event, event
from kandev_host.interfaces import AgentType, Change, LaunchExtras, ProcessSpec, Put
from kandev_host.journal import Journal
from kandev_host.log_ids import bound
from kandev_host.models import AgentInstance, AgentLog, Failure, Task, Turn, new_id, now
from kandev_host.protocol.notifications import ErrorPayload
from kandev_host.services.agent_tokens import AgentTokens
from kandev_host.services.credentials.choice import Credentials
from kandev_host.services.credentials.handed import Handed
from kandev_host.services.directories import Directories
from kandev_host.services.git import GitFailed
from kandev_host.services.launches import PrepareLaunch, extras_of, process_spec
from kandev_host.services.mcp import McpServers
from kandev_host.services.rules import outward_of
from kandev_host.services.setups import SetupFailed
from kandev_host.services.supervision import OnEnd, OnExit, Supervisor
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.sessions.conclusion import Conclusion
from kandev_host.sessions.ending import Ending
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.presets import pinned
from kandev_host.sessions.prompts import ENDED, PromptQueue, cancelled
from kandev_host.sessions.stage import Equipment, Resume

log = logging.getLogger(__name__)
RECORD_S = 10.0
# Of a runtime that makes its places from images: `Pulling`.
Fetch = Callable[[str | None, Mapping[str, str]], Awaitable[None]]
CLOSED = "The host stopped before the agent had started"

# What git says of a server that may answer the next time.
_PASSES = re.compile(
    r"could not resolve|unable to connect|failed to connect|couldn't connect|connection (?:refused|reset|timed out)"
    r"|timed out|early eof|unexpected disconnect|(?:returned error:|response) (?:429|5\d\d)|network is unreachable",
    re.I,
)


def agent_event(agent: AgentInstance, board_id: str, actor: str = "host") -> Event:
    payload = {"agent": agent, "agent_id": agent.id, "task_id": agent.task_id}
    return event("agent.updated", payload, actor=actor, board_id=board_id, task_id=agent.task_id, agent_id=agent.id)


class Launch(msgspec.Struct, kw_only=True):
    """One agent on its way up. `stopped` says that somebody stopped it meanwhile, `reason` why.

    `handed_over`: the supervisor answers for it; else `conclusion` is its end. `done`: waiting for it ends, but its
    end may not be recorded yet. `log` is kept of one that could not be brought up. `span` is that of its way up, until
    its session is open.
    """

    agent: AgentInstance
    task: Task
    agent_type: AgentType
    prompts: PromptQueue
    created_by: str
    situation: Situation
    resume: Resume | None = None
    stopped: bool = False
    reason: str | None = None
    handed_over: bool = False
    conclusion: Conclusion | None = None
    log: AgentLog | None = None
    scope: anyio.CancelScope = msgspec.field(default_factory=anyio.CancelScope)
    done: anyio.Event = msgspec.field(default_factory=anyio.Event)
    span: tracing.Span = tracing.NOTHING


class Launcher:
    """Use as an async context manager: leaving it ends what is still on its way up, and records that."""

    def __init__(
        self,
        journal: Journal,
        supervisor: Supervisor,
        *,
        workspaces: WorkspaceService,
        prepare_launch: Sequence[PrepareLaunch] = (),
        mcp: McpServers,
        directories: Directories,
        credentials: Credentials,
        tokens: AgentTokens,
        before: Callable[[AgentInstance], Awaitable[None]] | None = None,
    ) -> None:
        """`before` is awaited once the workspace is there, and before anything is started in it."""
        self._journal = journal
        self._supervisor = supervisor
        self._workspaces = workspaces
        self._prepare_launch = prepare_launch
        self._mcp = mcp
        self._directories = directories
        self._credentials = credentials
        self._tokens = tokens
        self._before = before
        self._group: anyio.abc.TaskGroup | None = None
        self._starting: dict[str, Launch] = {}
        self.on_end: OnEnd | None = None
        self.on_exit: OnExit | None = None

    async def __aenter__(self) -> Launcher:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._group is not None:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
            self._group = None

    @property
    def starting(self) -> Mapping[str, Launch]:
        return self._starting

    def outward(self, agent_type: AgentType, task: Task) -> str | None:
        """What an agent that starts now would be given that leads out of its jail, beside its network."""
        return outward_of(agent_type, task, self._mcp.outward(agent_type, task))

    def check_open(self) -> None:
        """Raise `Unavailable` when the host is stopping."""
        if self._group is None:
            raise Unavailable("The host is stopping")

    def begin(self, launch: Launch) -> None:
        """Bring it up in a task of its own. Raises `Unavailable` when the host is stopping."""
        if self._group is None:
            raise Unavailable("The host is stopping")
        self._starting[launch.agent.id] = launch
        agent = launch.agent
        described = {"kandev.agent.id": agent.id, "kandev.task.id": agent.task_id, "kandev.runtime": agent.runtime}
        launch.span = tracing.begin(f"launch {launch.agent_type.name}", described)
        self._group.start_soon(self._run, launch, name=f"launch {launch.agent.id}")

    async def settled(self, agent_id: str, timeout_s: float) -> None:
        """Wait until the agent is no longer on its way up. Raises `TimedOut`."""
        launch = self._starting.get(agent_id)
        if launch is None:
            return
        with anyio.move_on_after(timeout_s):
            await launch.done.wait()
            return
        raise TimedOut(f"The agent was still starting after {timeout_s:g} s")

    async def stop(self, agent_id: str, reason: str | None) -> bool:
        """End an agent on its way up, and wait for that; False if it is not (any more)."""
        launch = self._starting.get(agent_id)
        if launch is None:
            return False
        launch.stopped = True
        launch.reason = reason
        launch.scope.cancel()
        await launch.done.wait()
        return self._supervisor.live(agent_id) is None

    async def _run(self, launch: Launch) -> None:
        with bound(alone=True, task_id=launch.task.id, agent_id=launch.agent.id), launch.span.here():
            await self._bring_up_or_conclude(launch)

    async def _bring_up_or_conclude(self, launch: Launch) -> None:
        try:
            ending = await self._begun(launch)
            if ending is not None:
                await self._conclude(launch, ending)
        except anyio.get_cancelled_exc_class():
            if not launch.handed_over:
                with anyio.move_on_after(RECORD_S, shield=True):
                    await self._conclude(launch, Ending("STOPPED", CLOSED, "host_died"))
            raise
        finally:
            if not launch.handed_over:
                launch.span.end()
                self._release(launch.agent.id)
            self._starting.pop(launch.agent.id, None)
            launch.done.set()

    async def _begun(self, launch: Launch) -> Ending | None:
        """Bring it up; the end of one that has no process, None when the supervisor has it."""
        try:
            with launch.scope:
                await self._bring_up(launch)
        except KandevError as error:
            if isinstance(error, SetupFailed) and error.output:
                launch.log = AgentLog(agent_instance_id=launch.agent.id, log_level="error", message=error.output)
            return Ending("FAILED", error.message, failure_of(error))
        except Exception:
            correlation_id = new_id()
            log.exception("launch of agent %s broke (%s)", launch.agent.id, correlation_id)
            return Ending("FAILED", f"The host failed to start the agent ({correlation_id})", "unavailable")
        return None if launch.handed_over else Ending("STOPPED", launch.reason)

    async def _bring_up(self, launch: Launch) -> None:
        agent, task, agent_type = launch.agent, launch.task, launch.agent_type
        with tracing.child("prepare workspace", {"kandev.runtime": agent.runtime}):
            await self._workspaces.ensure(task, agent.runtime)
        if self._before is not None:
            await self._before(agent)
        runtime = self._workspaces.runtime(agent.runtime)
        for path, content in agent_type.files.items():
            await runtime.write_home(task.id, path, content.encode())
        handed = await self._credentials.of(agent_type, agent, task)
        spec, equipment = await self.outfit(agent, task, agent_type, launch.situation, handed)
        if agent.network == "host":
            log.warning(
                "agent %s (%s) has the network of this host: it reaches all that you do", agent.id, agent_type.name
            )
        fetch: Fetch | None = getattr(runtime, "fetch", None)
        if fetch is not None:  # now, while it can be stopped: a pull may take long
            await fetch(spec.image, spec.labels)
        with anyio.CancelScope(shield=True):  # from here on the supervisor answers for it: never half handed over
            if launch.scope.cancel_called:
                return
            await self._supervisor.start(
                agent=agent,
                task=task,
                agent_type=agent_type,
                runtime=runtime,
                spec=spec,
                prompts=launch.prompts,
                created_by=launch.created_by,
                situation=launch.situation,
                resume=launch.resume,
                equipment=equipment,
            )
            launch.handed_over = True

    async def outfit(
        self,
        agent: AgentInstance,
        task: Task,
        agent_type: AgentType,
        situation: Situation,
        handed: Handed,
        *,
        runs: bool = False,
    ) -> tuple[ProcessSpec, Equipment]:
        """The agent's process, and what its session is opened with; it `runs` already. Raises `KandevError`."""
        runtime = self._workspaces.runtime(agent.runtime)
        secrets = [] if runs else self._mcp.secrets(agent_type, task)
        try:
            mcp = await self._mcp.of(agent_type, task, runtime)
        except Conflict:
            await self._credentials.record_servers(agent, task, secrets, refused=True)
            raise
        await self._credentials.record_servers(agent, task, secrets)
        mounts, directories = self._directories.of(agent_type, task, runtime)
        extras = await extras_of(self._prepare_launch, agent, task)
        variables = [extra.token_variable for extra in extras if extra.token_variable]
        if variables and not runs:
            extras.append(LaunchExtras(env=dict.fromkeys(variables, self._tokens.mint(agent))))
        spec = process_spec(
            agent_type,
            agent,
            task,
            extras,
            read_only=situation.read_only,
            protected=pinned(situation.preset),
            mcp=mcp,
            directories=mounts,
            handed=handed,
        )
        return spec, Equipment(
            mcp_servers=mcp.servers,
            directories=directories,
            handed=handed.secrets,
            release=lambda: self._release(agent.id),
        )

    def _release(self, agent_id: str) -> None:
        self._credentials.release(agent_id)
        self._tokens.revoke(agent_id)

    async def _conclude(self, launch: Launch, ending: Ending) -> None:
        """Record the end of an agent that never started, and let it be judged, however long the store refuses."""
        conclusion = launch.conclusion
        launch.span.fail(ending.failure)
        if conclusion is None:
            waiting = await launch.prompts.close()
            dropped = () if ending.keeps_prompts else waiting
            conclusion = launch.conclusion = self._conclusion(launch, ending, dropped)
        await conclusion.record()
        launch.done.set()
        await conclusion.catch_up()

    def _conclusion(self, launch: Launch, ending: Ending, dropped: Sequence[Turn]) -> Conclusion:
        agent = replace(
            launch.agent,
            status=ending.status,
            activity=None,
            error_message=ending.reason,
            failure=ending.failure,
            stopped_at=now(),
            updated_at=now(),
        )
        told: list[Change] = [Put(cancelled(turn, ENDED)) for turn in dropped]
        told += [launch.prompts.emptied()] if dropped else []
        told += [] if launch.log is None else [Put(launch.log)]
        told.append(agent_event(agent, launch.task.board_id))
        if ending.status == "FAILED":
            ids: dict[str, Any] = {"task_id": agent.task_id, "agent_id": agent.id}
            message = ending.reason or "The agent could not be started"
            payload = ErrorPayload(**ids, code="LAUNCH_FAILED", message=message)
            told.append(event("acp.error", payload, board_id=launch.task.board_id, **ids))
        return Conclusion(self._journal, agent, ending, (Put(agent), *told), self.on_end, self.on_exit)


def failure_of(error: KandevError) -> Failure:
    """Of what kind a failure before the start is: what git or the runtime could not do just now, or a wrong setting."""
    if isinstance(error, GitFailed):
        return "unavailable" if _PASSES.search(error.message) else "config"
    passing = isinstance(error, Unavailable | TimedOut | Busy | StorageFull) and not isinstance(error, Misconfigured)
    return "unavailable" if passing else "config"
