"""Real processes, the real journal and the real store; only the jail is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from kandev_host.bus import MemoryBus
from kandev_host.events import Event
from kandev_host.interfaces import (
    AgentType,
    Availability,
    Environment,
    FileContent,
    FileEntry,
    NetworkDecision,
    Owned,
    PlaceUse,
    Principal,
    ProcessSpec,
    Result,
    Shell,
    Stats,
    Store,
    Terminal,
)
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, AgentLog, Board, PermissionRequest, Session, Task, Turn, Usage, User
from kandev_host.sessions.capture import Captures
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.rulebook import RuleBook
from kandev_host.sessions.stage import Equipment, Resume
from kandev_host.sessions.supervisor import AgentSupervisor
from kandev_host.settings import OrchestratorSettings, PermissionSettings, RuleSettings, SessionSettings
from kandev_host.testing import scripted_agent
from kandev_sqlite import SqliteSettings, open_store

DEADLINE_S = 60
# Time for who obeys, however loaded the machine is; little for who is to be killed.
QUICK = SessionSettings(cancel_grace_s=60.0, kill_grace_s=0.4, fault_limit_lines=50)


class PlainProcess:
    """A child in a process group of its own."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        self.ref = str(process.pid)
        self.ending: str | None = None
        self.adoptable = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._read(self._process.stdout, max_bytes)

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        return await self._read(self._process.stderr, max_bytes)

    async def _read(self, stream: Any, max_bytes: int) -> bytes:
        try:
            return await stream.receive(max_bytes)
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return b""

    async def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send(data)

    async def close_stdin(self) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    async def wait(self) -> int:
        return await self._process.wait()

    async def terminate(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def stats(self) -> Stats:
        return Stats(pids=1)


class PlainRuntime:
    """Processes without a jail."""

    name = "plain"
    confines = False

    @asynccontextmanager
    async def spawn(self, spec: ProcessSpec) -> AsyncIterator[PlainProcess]:
        env = {**os.environ, **spec.env}
        pipe = subprocess.PIPE
        child = await anyio.open_process(
            spec.command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        process = PlainProcess(child)
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                await process.kill()
                await child.aclose()

    async def probe(self) -> Availability:
        return Availability(True)

    async def locate(self, command: str, image: str | None = None) -> Availability:
        return Availability(True)

    async def prepare(self, workspace_id: str) -> None: ...

    async def remove(self, workspace_id: str) -> None: ...

    async def write_home(self, workspace_id: str, path: str, content: bytes) -> None: ...

    async def run(
        self, spec: ProcessSpec, *, stdin: bytes = b"", timeout_s: float = 60.0, max_output_bytes: int = 8 << 20
    ) -> Result:
        raise NotImplementedError

    def open_shell(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Shell]:
        raise NotImplementedError

    def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> AbstractAsyncContextManager[Terminal]:
        raise NotImplementedError

    async def list_files(self, workspace_id: str, path: str, depth: int, limit: int) -> list[FileEntry]:
        raise NotImplementedError

    async def read_file(self, workspace_id: str, path: str, offset: int, limit_bytes: int) -> FileContent:
        raise NotImplementedError

    async def use(self, workspace_id: str) -> PlaceUse:
        raise NotImplementedError

    def decisions(self) -> AsyncIterator[NetworkDecision]:
        raise NotImplementedError

    async def list_owned(self) -> list[Owned]:
        return []

    async def adopt(self, ref: str, position: int) -> None:
        return None

    async def reap(self, ref: str) -> bool:
        return False


@dataclass
class World:
    """A supervisor on real floors, and everything it published."""

    store: Store
    journal: Journal
    broker: PermissionBroker
    supervisor: AgentSupervisor
    task: Task
    bus: MemoryBus
    settings: SessionSettings
    published: list[Event] = field(default_factory=list)
    _news: anyio.Event = field(default_factory=anyio.Event)

    def sink(self, event: Event) -> None:
        self.published.append(event)
        self._news.set()

    async def start(
        self,
        script: Mapping[str, Any] | None = None,
        *,
        prompt: list[dict[str, Any]] | str | None = None,
        command: tuple[str, ...] | None = None,
        orchestrated: bool = False,
        preset: Any = "ask",
        situation: Mapping[str, Any] = {},
        runtime: Any = None,
        resume: Resume | None = None,
        equipment: Equipment | None = None,
        **agent_type: Any,
    ) -> str:
        agent = AgentInstance(
            task_id=self.task.id,
            agent_type="scripted",
            runtime="plain",
            orchestrated=orchestrated,
            resumed_from=None if resume is None else resume.session.agent_id,
        )
        await self.journal.record(msgspec_put(agent))
        command = command or (sys.executable, scripted_agent.__file__, json.dumps(script or {}))
        spec = ProcessSpec(workspace_id=self.task.id, command=command, env=agent_type.get("env", {}))
        await self.supervisor.start(
            agent,
            self.task,
            AgentType(name="scripted", command=command, **agent_type),
            runtime or PlainRuntime(),
            spec,
            first_prompt=None if prompt is None else blocks(prompt),
            created_by="user",
            situation=Situation(
                agent_type="scripted",
                task_id=self.task.id,
                **{"preset": preset, "jailed": True, "network": "none", "read_only": True, **situation},
            ),
            resume=resume,
            equipment=equipment or Equipment(),
        )
        return agent.id

    async def prompt(self, agent_id: str, prompt: list[dict[str, Any]] | str, **how: Any) -> str:
        return await self.supervisor.prompt(agent_id, blocks(prompt), "user", **how)

    async def until(self, action: str, accept: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The payload of the first such event, published already or soon."""
        seen = 0
        with anyio.fail_after(DEADLINE_S):
            while True:
                self._news = anyio.Event()
                for event in self.published[seen:]:
                    payload = msgspec.json.decode(event.payload)
                    if event.action == action and accept(payload):
                        return payload
                seen = len(self.published)
                await self._news.wait()

    @property
    def me(self) -> Principal:
        """Somebody who may answer."""
        return Principal(id="user", kind="user", name="user")

    async def until_idle(self) -> None:
        await self.until("acp.status", lambda payload: payload["activity"] == "idle")

    async def ended(self, agent_id: str) -> AgentInstance:
        run = self.supervisor.live(agent_id)
        if run is not None:
            with anyio.fail_after(DEADLINE_S):
                await run.ended.wait()
        row = await self.store.get(AgentInstance, agent_id)
        assert row is not None
        return row

    def payloads(self, action: str) -> list[dict[str, Any]]:
        return [msgspec.json.decode(event.payload) for event in self.published if event.action == action]

    def texts(self) -> list[str]:
        """The messages of the agent, chunk by chunk."""
        logs = self.payloads("acp.log")
        return [log["message"] for log in logs if log["metadata"]["type"] == "agent_message_chunk"]

    async def rows(self, kind: Any) -> list[Any]:
        return (await self.store.find(kind, limit=500)).rows

    async def turn(self) -> Turn:
        return (await self.rows(Turn))[-1]

    async def usage(self) -> Usage:
        return (await self.rows(Usage))[-1]

    async def session(self) -> Session:
        return (await self.rows(Session))[-1]

    async def permission(self) -> PermissionRequest:
        return (await self.rows(PermissionRequest))[-1]

    async def logs(self) -> list[AgentLog]:
        return await self.rows(AgentLog)


def msgspec_put(row: Any) -> Any:
    from kandev_host.interfaces import Put

    return Put(row)


def blocks(prompt: list[dict[str, Any]] | str) -> list[dict[str, Any]]:
    text = prompt if isinstance(prompt, str) else json.dumps(prompt)
    return [{"type": "text", "text": text}]


Open = Callable[..., Any]


@pytest.fixture
async def open_world(tmp_path: Path) -> AsyncIterator[Open]:
    """Worlds with settings, policies or presets of their own, closed at the end."""
    async with AsyncExitStack() as stack:

        async def opened(
            settings: SessionSettings = QUICK,
            permissions: PermissionSettings | None = None,
            policies: Any = (),
            stalls: OrchestratorSettings | None = None,
            wrap: Callable[[Store], Any] = lambda store: store,
            rules: Mapping[str, RuleSettings] | None = None,
            captures: Captures | None = None,
        ) -> World:
            store = wrap(await stack.enter_async_context(open_store(SqliteSettings(), Environment(str(tmp_path), "0"))))
            bus = MemoryBus()
            journal = await stack.enter_async_context(Journal(store, bus))
            broker = PermissionBroker(
                store, journal, policies, settings=permissions or PermissionSettings(), rules=RuleBook(store, rules)
            )
            supervisor = await stack.enter_async_context(
                AgentSupervisor(journal, broker, settings, stalls=stalls, captures=captures)
            )
            user = User(email="user@example.org", username="user")
            board = Board(name="Work", owner_id=user.id)
            task = Task(board_id=board.id, title="A task", description="", created_by=user.id)
            await journal.record(msgspec_put(user), msgspec_put(board), msgspec_put(task))
            world = World(store, journal, broker, supervisor, task, bus, settings)
            bus.subscribe(["*"], world.sink)
            return world

        yield opened


@pytest.fixture
async def world(open_world: Open) -> World:
    return await open_world()


@pytest.fixture
async def impatient_world(open_world: Open) -> World:
    """For agents that do not obey a cancel: they are not waited for."""
    return await open_world(msgspec.structs.replace(QUICK, cancel_grace_s=0.4))


@pytest.fixture
async def jail(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    """The real bwrap runtime, with the workspace w1."""
    from kandev_bwrap import BwrapSettings, open_runtime

    async with open_runtime(BwrapSettings(), Environment(str(tmp_path / "jails"), "0")) as runtime:
        await runtime.prepare("w1")
        yield runtime


class AgentOutside:
    """The agent runs as a plain process, whatever is done for it in a jail: for agents that no jail could start."""

    name = "outside"
    confines = True

    def __init__(self, jail: Any, agent: tuple[str, ...]) -> None:
        self._jail = jail
        self._agent = agent

    def spawn(self, spec: ProcessSpec) -> Any:
        return PlainRuntime().spawn(spec) if spec.command == self._agent else self._jail.spawn(spec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jail, name)


@pytest.fixture
def outside(jail: Any) -> Callable[[World, tuple[str, ...]], Awaitable[AgentOutside]]:
    """A runtime with a real jail of the world's task beside an agent with this command."""

    async def made(world: World, command: tuple[str, ...]) -> AgentOutside:
        await jail.prepare(world.task.id)
        return AgentOutside(jail, command)

    return made
