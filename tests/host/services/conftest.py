from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_agents import kandev_prepare_launch
from kandev_bwrap import BwrapSettings
from kandev_bwrap import open_runtime as open_bwrap
from kandev_host import AgentType, Environment, Principal
from kandev_host.bus import MemoryBus
from kandev_host.events import Event
from kandev_host.interfaces import ProcessSpec, Put
from kandev_host.journal import Journal
from kandev_host.models import LOCAL_USER_ID, AgentInstance, Task, Workspace
from kandev_host.protocol.actions.agents import AgentLaunch, DiffReply, WorkspaceDiff
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.tasks import TaskCreate
from kandev_host.services import Services, build_services
from kandev_host.services.orchestration.assembly import Chance
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.rulebook import RuleBook
from kandev_host.sessions.supervisor import AgentSupervisor
from kandev_host.settings import Settings
from kandev_host.testing import scripted_agent
from kandev_sqlite import SqliteSettings, open_store

ME = Principal(LOCAL_USER_ID, "user", "local", frozenset({"*"}))


class House:
    """The services over the real store, journal, supervisor and jail; `events` are all that the bus delivered."""

    def __init__(self, services: Services) -> None:
        self.me = ME
        self.services = services
        self.events: list[Event] = []
        self.arrived = anyio.Event()
        services.bus.subscribe(["*"], self._take)

    def _take(self, item: Event) -> None:
        self.events.append(item)
        self.arrived.set()
        self.arrived = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.services, name)


@asynccontextmanager
async def opened(
    data: Path,
    agent_types: list[AgentType],
    settings: Settings,
    given: Chance | None = None,
    prepare_launch: Any = kandev_prepare_launch,
) -> AsyncIterator[House]:
    os.makedirs(data, mode=0o711, exist_ok=True)
    environment = Environment(str(data), "0")
    async with open_store(SqliteSettings(), environment) as store, Journal(store, bus := MemoryBus()) as journal:
        broker = PermissionBroker(store, journal, settings=settings.permissions, rules=RuleBook(store, settings.rules))
        async with (
            # Not in volumes: tests look into the folders from outside.
            open_bwrap(BwrapSettings(disk="watch"), environment) as runtime,
            AgentSupervisor(journal, broker, settings.session, stalls=settings.orchestrator) as supervisor,
        ):
            services = build_services(
                settings,
                store=store,
                journal=journal,
                bus=bus,
                runtimes={"bwrap": runtime},
                agent_types={agent_type.name: agent_type for agent_type in agent_types},
                broker=broker,
                supervisor=supervisor,
                prepare_launch=[prepare_launch],
                given=given,
            )
            async with services:
                yield House(services)


@pytest.fixture
def open_house() -> Any:
    return opened


@pytest.fixture
async def house(tmp_path: Path, anyio_backend: str) -> AsyncIterator[House]:
    async with opened(tmp_path / "data", [], Settings()) as made:
        yield made


IDENTITY = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"],
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], env=IDENTITY, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on main, a branch `side`, and a file that is not committed."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "a.txt").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    git(folder, "branch", "side")
    (folder / "b.txt").write_text("two\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "second")
    (folder / "dirty.txt").write_text("not committed\n")
    return folder


class Desk:
    """A task for each repository, and a shell in its workspace."""

    def __init__(self, house: Any, board_id: str) -> None:
        self.house = house
        self.board_id = board_id

    async def task(self, repository: Path | str | None, branch: str | None = None) -> Task:
        """A task as stored, whatever was checked at its creation."""
        url = None if repository is None else str(repository)
        task = Task(
            board_id=self.board_id, title="t", description="", repository_url=url, branch=branch, created_by="me"
        )
        await self.house.journal.record(Put(task))
        return task

    async def workspace(self, repository: Path | str | None, branch: str | None = None) -> Workspace:
        workspace: Workspace = await self.house.workspaces.ensure(await self.task(repository, branch), "bwrap")
        return workspace

    async def sh(self, workspace: Workspace, script: str, **fields: Any) -> str:
        spec = ProcessSpec(workspace_id=workspace.id, command=("sh", "-c", script), **fields)
        result = await self.house.runtimes["bwrap"].run(spec)
        assert result.exit_code == 0, result.stderr.decode()
        return str(result.stdout.decode().strip())

    async def diff(self, workspace: Workspace) -> DiffReply:
        reply: DiffReply = await self.house.workspaces.diff(self.house.me, WorkspaceDiff(task_id=workspace.id))
        return reply


@pytest.fixture
def make_desk() -> type[Desk]:
    return Desk


@pytest.fixture
async def desk(house: Any) -> Desk:
    made = await house.boards.create(house.me, BoardCreate(name="Work"))
    return Desk(house, made.board.id)


WAIT_S = 60.0
# Its code is handed over on the command line, since no jail sees this folder.
AGENT = (sys.executable, "-I", "-S", "-c", Path(scripted_agent.__file__).read_text())


class Shop:
    """A house with one task, whose agent plays a script."""

    def __init__(self, house: Any, task: Task) -> None:
        self.house = house
        self.task = task

    async def plays(self, *steps: Any) -> str:
        """What the agent says in a turn with these steps."""
        launch = AgentLaunch(task_id=self.task.id, agent_type="scripted", prompt=json.dumps(steps))
        await self.house.agents.launch(self.house.me, launch)
        return str((await self.heard("acp.result"))["summary"])

    async def heard(self, action: str) -> dict[str, Any]:
        with anyio.fail_after(WAIT_S):
            while True:
                found = [json.loads(bytes(item.payload)) for item in self.house.events if item.action == action]
                if found:
                    return dict(found[-1])
                await self.house.arrived.wait()

    async def reads(self, name: str) -> str:
        """A file of the workspace."""
        spec = ProcessSpec(workspace_id=self.task.id, command=("cat", name))
        return str((await self.house.runtimes["bwrap"].run(spec)).stdout.decode())

    async def failed(self) -> AgentInstance:
        """The agent of the task, once it has ended."""
        with anyio.fail_after(WAIT_S):
            while True:
                arrived = self.house.arrived  # before the look: what arrives during it is news as well
                (agent,) = (await self.house.store.find(AgentInstance)).rows
                if agent.status == "FAILED":
                    ended: AgentInstance = agent
                    return ended
                await arrived.wait()


@pytest.fixture
def open_shop(open_house: Any, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def opened(
        settings: Settings, script: Any = None, *, task: Any = None, **agent_type: Any
    ) -> AsyncIterator[Shop]:
        kind = AgentType(name="scripted", command=(*AGENT, json.dumps(script or {})), **agent_type)
        async with open_house(tmp_path / "data", [kind], settings) as house:
            board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
            request = TaskCreate(board_id=board.id, title="t", description="", **(task or {}))
            yield Shop(house, (await house.tasks.create(house.me, request)).task)

    return opened
