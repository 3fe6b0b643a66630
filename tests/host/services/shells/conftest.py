"""The services over the real store and journal; what happens in the jails is scripted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host import Environment, Principal
from kandev_host.bus import MemoryBus
from kandev_host.events import Event
from kandev_host.interfaces import Put
from kandev_host.journal import Journal
from kandev_host.models import LOCAL_USER_ID, Task, Workspace
from kandev_host.protocol.actions import shells as wire
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.services import Services, build_services
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.rulebook import RuleBook
from kandev_host.sessions.supervisor import AgentSupervisor
from kandev_host.settings import Settings, ShellSettings, UseSettings
from kandev_sqlite import SqliteSettings, open_store

from .scripted import ScriptedRuntime

ME = Principal(LOCAL_USER_ID, "user", "local", frozenset({"*"}))
DEADLINE_S = 60.0


class Listener:
    """A socket that follows a shell. It has room while it `reads`."""

    def __init__(self) -> None:
        self.reads = anyio.Event()
        self.reads.set()
        self.asked = anyio.Event()

    async def room(self, size: int) -> None:
        self.asked.set()
        await self.reads.wait()


class Bench:
    """A house with a scripted runtime; `events` are all that the bus delivered, on whatever topic."""

    def __init__(self, services: Services, runtime: ScriptedRuntime) -> None:
        self.services = services
        self.runtime = runtime
        self.me = ME
        self.events: list[Event] = []
        self._news = anyio.Event()
        self._heard = services.bus.subscribe(["*"], self._take)
        self.listener = Listener()

    def _take(self, item: Event) -> None:
        self.events.append(item)
        self._news.set()
        self._news = anyio.Event()

    async def open(self, **how: Any) -> Any:
        """Opens a shell and follows it, as a socket does."""
        row = (await self.services.shells.open(ME, wire.ShellOpen(**how))).shell
        self._heard.add(f"shell:{row.id}")
        self.services.audiences.join(f"shell:{row.id}", self.listener)
        return row

    def unfollow(self, row: Any) -> None:
        self.services.audiences.leave(f"shell:{row.id}", self.listener)

    async def do(self, verb: str, row: Any, **fields: Any) -> Any:
        request = getattr(wire, f"Shell{verb.title()}")(shell_id=row.id, **fields)
        return await getattr(self.services.shells, verb)(ME, request)

    async def run(self, row: Any, command: str, **fields: Any) -> Any:
        return await self.do("run", row, command=command, **fields)

    async def task(self, **fields: Any) -> Task:
        """A task whose workspace is made already."""
        board = (await self.services.boards.create(ME, BoardCreate(name="Work"))).board
        task = Task(board_id=board.id, title="t", description="", created_by="me", **fields)
        await self.services.journal.record(Put(task), Put(Workspace(id=task.id, runtime="scripted")))
        return task

    async def until(self, condition: Callable[[], object]) -> None:
        with anyio.fail_after(DEADLINE_S):
            while not condition():
                await anyio.sleep(0.01)

    def told(self, action: str) -> list[dict[str, Any]]:
        return [json.loads(bytes(item.payload)) for item in self.events if item.action == action]

    async def hears(self, action: str, accept: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The payload of the first such event, published already or soon."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                news = self._news
                for payload in self.told(action):
                    if accept(payload):
                        return payload
                await news.wait()

    async def commands(self) -> list[Any]:
        request = wire.ShellCommands()
        return list(reversed((await self.services.shells.commands(ME, request)).commands))


@asynccontextmanager
async def opened(data: Path, runtime: Any = None, **settings: Any) -> AsyncIterator[Bench]:
    chosen = Settings(use=UseSettings(runtime="scripted"), shells=ShellSettings(**settings))
    environment = Environment(str(data), "0")
    async with open_store(SqliteSettings(), environment) as store, Journal(store, bus := MemoryBus()) as journal:
        broker = PermissionBroker(store, journal, settings=chosen.permissions, rules=RuleBook(store, {}))
        async with AgentSupervisor(journal, broker, chosen.session) as supervisor:
            runtime = runtime or ScriptedRuntime()
            services = build_services(
                chosen,
                store=store,
                journal=journal,
                bus=bus,
                runtimes={"scripted": runtime},
                agent_types={},
                broker=broker,
                supervisor=supervisor,
            )
            async with services:
                yield Bench(services, runtime)


@pytest.fixture
def open_bench(tmp_path: Path) -> Any:
    return partial(opened, tmp_path)


@pytest.fixture
async def bench(open_bench: Any, anyio_backend: str) -> AsyncIterator[Bench]:
    async with open_bench() as made:
        yield made
