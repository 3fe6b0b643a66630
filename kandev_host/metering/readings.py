"""What stands at this moment: read from memory, and of queue and agents as last looked at."""

from __future__ import annotations

import asyncio
import platform
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import anyio
from msgspec.structs import replace

from kandev_host.errors import KandevError
from kandev_host.interfaces import Stats, Store, Telemetry
from kandev_host.metering.recorder import Recorder
from kandev_host.metrics import Sample
from kandev_host.models import QueueEntry
from kandev_host.version import __version__

if TYPE_CHECKING:
    from kandev_host.models import AgentInstance

FRESH_S = 5.0
LOOK_S = 2.0


class Live(Protocol):
    """A live agent."""

    @property
    def agent(self) -> AgentInstance: ...

    async def stats(self) -> Stats: ...


class Agents(Protocol):
    """Who knows the live agents."""

    @property
    def runs(self) -> Sequence[Live]: ...


class Writing(Protocol):
    """The journal."""

    @property
    def waiting(self) -> int: ...

    @property
    def waiting_bytes(self) -> int: ...


class Sockets(Protocol):
    """The gateway."""

    @property
    def sockets(self) -> int: ...


class Readings:
    """`refresh`, then `samples`. A look at queue and agents takes LOOK_S at most, and is good for FRESH_S."""

    def __init__(
        self,
        telemetry: Telemetry,
        recorder: Recorder,
        *,
        store: Store,
        journal: Writing,
        agents: Agents,
        gateway: Sockets,
    ) -> None:
        self._telemetry = telemetry
        self._recorder = recorder
        self._store = store
        self._journal = journal
        self._agents = agents
        self._gateway = gateway
        self._opened = time.monotonic()
        self._looked: float | None = None
        self._queue: dict[str, int] = {}
        self._use: dict[str, tuple[int, int]] = {}
        self._stats: dict[str, Stats] = {}

    async def refresh(self) -> None:
        """Look anew unless that was done just now, or is being done. What cannot be had in time stays as it was."""
        now = time.monotonic()
        if self._looked is not None and now - self._looked < FRESH_S:
            return
        self._looked = now
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look_at_queue)
            tasks.start_soon(self._look_at_agents)

    def samples(self) -> Iterator[Sample]:
        """Every gauge, without a wait."""
        yield "kandev_build_info", {"version": __version__, "python": platform.python_version()}, 1.0
        yield "kandev_asyncio_tasks", {}, len(asyncio.all_tasks())
        yield "kandev_uptime_seconds", {}, time.monotonic() - self._opened
        yield "kandev_websocket_connections", {}, self._gateway.sockets
        yield "kandev_journal_queue_commits", {}, self._journal.waiting
        yield "kandev_journal_queue_bytes", {}, self._journal.waiting_bytes
        for state, number in self._queue.items():
            yield "kandev_queue_tasks", {"state": state}, number
        for agent_type, (rss_bytes, processes) in self._use.items():
            yield "kandev_agent_memory_bytes", {"agent_type": agent_type}, rss_bytes
            yield "kandev_agent_processes", {"agent_type": agent_type}, processes
        yield from self._recorder.samples()

    async def _look_at_queue(self) -> None:
        with anyio.move_on_after(LOOK_S):
            try:
                for state in ("waiting", "running"):
                    self._queue[state] = await self._store.count(QueueEntry, [("state", "=", state)])
            except KandevError:
                self._queue.clear()  # unknown is not the same as before

    async def _look_at_agents(self) -> None:
        found: dict[str, Stats] = {}

        async def look(run: Live) -> None:
            with anyio.move_on_after(LOOK_S):
                try:
                    found[run.agent.id] = await run.stats()
                except (KandevError, OSError):
                    return  # it has just gone, or its engine has

        async with anyio.create_task_group() as tasks:
            for run in self._agents.runs:
                tasks.start_soon(look, run)
        self._add_up(found)

    def _add_up(self, found: Mapping[str, Stats]) -> None:
        """Of an agent that did not answer in time, what it said last."""
        live = {run.agent.id: run.agent for run in self._agents.runs}
        before, self._stats = self._stats, {}
        memory: dict[str, int] = defaultdict(int)
        processes: dict[str, int] = defaultdict(int)
        for id, agent in live.items():
            old, agent_type = before.get(id, Stats()), self._recorder.known(agent.agent_type)
            new = found.get(id, old)
            if new.cpu_s is None:
                new = replace(new, cpu_s=old.cpu_s)
            self._stats[id] = new
            memory[agent_type] += new.rss_bytes or 0
            processes[agent_type] += new.pids or 0
            more = (new.cpu_s or 0.0) - (old.cpu_s or 0.0)
            if more > 0:
                self._telemetry.count("kandev_agent_cpu_seconds_total", more, {"agent_type": agent_type})
        self._use = {name: (memory[name], processes[name]) for name in memory.keys() | self._use.keys()}
