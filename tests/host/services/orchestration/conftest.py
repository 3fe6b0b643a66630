from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from kandev_agents.presets import DEMO
from kandev_host.interfaces import AgentType, ProcessSpec
from kandev_host.models import AgentInstance, Board, QueueEntry, Task, now
from kandev_host.protocol.actions.agents import AgentLaunch
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.orchestrator import OrchestratorQueue, OrchestratorStart, QueueItem
from kandev_host.protocol.actions.tasks import TaskCreate, TaskStateChange
from kandev_host.services.orchestration import service
from kandev_host.services.orchestration.assembly import Chance
from kandev_host.services.orchestration.clock import Clock
from kandev_host.settings import OrchestratorSettings, PermissionSettings, Settings
from kandev_host.testing import scripted_agent

WAIT_S = 60.0
SOURCE = Path(scripted_agent.__file__).read_text()
# Its code is handed over on the command line, since no jail sees this folder. The prompt is its script.
SCRIPTED = AgentType(name="scripted", command=(sys.executable, "-I", "-S", "-c", SOURCE))
TYPES = [DEMO, SCRIPTED, AgentType(name="missing", command=("no-such-agent",), install_hint="npm i no-such-agent")]


class FakeClock(Clock):
    """Stands still until it is moved; the wall clock can be moved alone."""

    def __init__(self) -> None:
        self.wall = now()
        self._passed_s = 0.0
        self._moved = anyio.Event()

    def monotonic(self) -> float:
        return 1000.0 + self._passed_s

    def now(self) -> datetime:
        return self.wall + timedelta(seconds=self._passed_s)

    def advance(self, seconds: float) -> None:
        self._passed_s += seconds
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    async def wait(self, woken: anyio.Event, seconds: float | None) -> None:
        due = float("inf") if seconds is None else self.monotonic() + seconds
        while not woken.is_set() and self.monotonic() < due - 1e-9:
            async with anyio.create_task_group() as tasks:
                for event in (woken, self._moved):
                    tasks.start_soon(self._until, event, tasks.cancel_scope)

    @staticmethod
    async def _until(event: anyio.Event, scope: anyio.CancelScope) -> None:
        await event.wait()
        scope.cancel()


@dataclass
class Floor:
    """A house with one board; the dispatcher runs only within `dispatching`."""

    house: Any
    board_id: str

    async def task(self, description: str = "sleep 60", **fields: Any) -> Task:
        given = {"board_id": self.board_id, "agent_type": "demo", "title": description[:100], **fields}
        request = TaskCreate(**given, description=description)
        task: Task = (await self.house.tasks.create(self.house.me, request)).task
        return task

    async def scripted(self, *steps: dict[str, Any], **fields: Any) -> Task:
        return await self.task(json.dumps(steps), agent_type="scripted", **fields)

    @asynccontextmanager
    async def dispatching(self) -> AsyncIterator[None]:
        async with self.house.dispatcher:
            await self.looked()
            yield

    async def looked(self) -> None:
        """Until the queue was looked at once more."""
        await self.house.dispatcher.considered(WAIT_S)

    async def until(self, meets: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event, past or to come, that meets the condition."""
        seen = 0
        with anyio.fail_after(WAIT_S):
            while True:
                while seen < len(self.house.events):
                    item = self.house.events[seen]
                    seen += 1
                    payload = msgspec.json.decode(item.payload)
                    if meets(item.action, payload):
                        return dict(payload)
                await self.house.arrived.wait()

    async def became(self, task: Task, state: str) -> Task:
        """The task, once an event says that it came into this state."""
        found = await self.until(
            lambda action, payload: (
                action == "task.state_changed" and payload["task"]["id"] == task.id and payload["new_state"] == state
            )
        )
        return msgspec.convert(found["task"], Task)

    async def run_became(self, task: Task, attempt: int = 1, **fields: Any) -> AgentInstance:
        """This attempt at the task, once an event shows it with these fields."""
        found = await self.until(
            lambda action, payload: (
                action == "agent.updated"
                and payload["agent"]["task_id"] == task.id
                and payload["agent"]["attempt"] == attempt
                and all(payload["agent"][key] == value for key, value in fields.items())
            )
        )
        return msgspec.convert(found["agent"], AgentInstance)

    async def touch(self, task: Task, name: str) -> None:
        """An empty file in the workspace, as a sign for the agent."""
        spec = ProcessSpec(workspace_id=task.id, command=("touch", name))
        assert (await self.house.runtimes["bwrap"].run(spec)).exit_code == 0

    async def row(self, task: Task) -> Task:
        found: Task = await self.house.store.get(Task, task.id)
        return found

    async def entry(self, task: Task) -> QueueEntry | None:
        found: QueueEntry | None = await self.house.store.get(QueueEntry, task.id)
        return found

    async def runs(self, task: Task) -> list[AgentInstance]:
        page = await self.house.store.find(AgentInstance, [("task_id", "=", task.id)])
        return list(page.rows)

    async def queue(self) -> list[QueueItem]:
        return list((await self.house.orchestrator.queue(self.house.me, OrchestratorQueue())).entries)

    async def waiting_for(self, task: Task) -> Any:
        """None for an entry that waits for nothing. One that is not in the queue fails with how things stand."""
        for item in await self.queue():
            if item.task_id == task.id:
                return item.waiting_for
        raise AssertionError((await self.entry(task), await self.row(task), await self.all_runs()))

    async def all_runs(self) -> list[tuple[str, str, str | None]]:
        """Task, status and error of every run there was."""
        page = await self.house.store.find(AgentInstance, [])
        return [(run.task_id, run.status, run.error_message) for run in page.rows]

    async def start(self, task: Task, **fields: Any) -> AgentInstance:
        reply = await self.house.orchestrator.start(self.house.me, OrchestratorStart(task_id=task.id, **fields))
        agent: AgentInstance = reply.agent
        return agent

    async def launch(self, task: Task, **fields: Any) -> AgentInstance:
        agent: AgentInstance = (
            await self.house.agents.launch(self.house.me, AgentLaunch(task_id=task.id, **fields))
        ).agent
        return agent

    async def set_state(self, task: Task, state: Any) -> None:
        await self.house.tasks.state(self.house.me, TaskStateChange(task_id=task.id, state=state))


def settings(**orchestrator: Any) -> Settings:
    """Nobody answers here, so everything is allowed."""
    return Settings(
        orchestrator=OrchestratorSettings(**orchestrator), permissions=PermissionSettings(preset="unattended")
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def open_floor(open_house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open a floor with these settings of the orchestrator; again, to start the host anew on the same data."""
    monkeypatch.setattr(service, "CONSIDERED_S", WAIT_S)  # on a busy machine a launch takes longer than a caller waits

    @asynccontextmanager
    async def opened(
        *, clock: FakeClock | None = None, types: list[AgentType] = TYPES, data: Path | None = None, **orchestrator: Any
    ) -> AsyncIterator[Floor]:
        given = Chance(clock=clock or Clock(), random=lambda: 1.0)
        async with open_house(data or tmp_path / "data", types, settings(**orchestrator), given) as house:
            boards = (await house.store.find(Board)).rows
            if not boards:
                boards = [(await house.boards.create(house.me, BoardCreate(name="Work"))).board]
            yield Floor(house, boards[0].id)

    return opened


@pytest.fixture
async def floor(open_floor: Any, anyio_backend: str) -> AsyncIterator[Floor]:
    async with open_floor() as made:
        yield made
