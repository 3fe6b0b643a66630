"""Everything looked at, now and then: what no event told is found all the same."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from kandev_host.interfaces import Store
from kandev_host.models import QueueEntry, Task
from kandev_host.services.agents import AgentService
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.clock import Backoffs, Clock
from kandev_host.services.orchestration.dead import DeadRuns
from kandev_host.services.orchestration.entries import in_step
from kandev_host.services.orchestration.look import tasks_of
from kandev_host.services.rows import PAGE
from kandev_host.services.runs import LiveRuns
from kandev_host.settings import OrchestratorSettings

EVERY_S = 60.0
LOST = "The host lost its agent"


class Sweep:
    """`wanted` asks for one at once."""

    def __init__(
        self,
        store: Store,
        runs: LiveRuns,
        agents: AgentService,
        dead: DeadRuns,
        *,
        locks: Locks,
        settings: OrchestratorSettings,
        backoffs: Backoffs,
        clock: Clock,
    ) -> None:
        self._store = store
        self._runs = runs
        self._agents = agents
        self._dead = dead
        self._locks = locks
        self._settings = settings
        self._backoffs = backoffs
        self._clock = clock
        self._last = 0.0
        self.wanted = True

    @property
    def due(self) -> float:
        """When the next one is, on the monotonic clock."""
        return 0.0 if self.wanted else self._last + EVERY_S

    async def run(self) -> AsyncGenerator[list[str], None]:
        """The tasks that are to be settled, page by page."""
        self.wanted = False
        finished = False
        try:
            yield await self._lost()
            async for page in self._entries():
                yield page
            if self._settings.auto_start:
                async for page in self._tasks():
                    yield page
            finished = True
        finally:
            self.wanted |= not finished
            self._last = self._clock.monotonic()

    async def _lost(self) -> list[str]:
        """Runs that the supervisor does not know, although their rows say that they live."""
        return [
            agent.task_id for agent in await self._runs.everywhere() if await self._fail_lost(agent.id, agent.task_id)
        ]

    async def _fail_lost(self, agent_id: str, task_id: str) -> bool:
        if self._agents.alive(agent_id):
            return False
        async with self._locks.hold(f"task:{task_id}"):  # whoever is launching one holds it until that is known
            agent = await self._runs.still_live(agent_id)
            if agent is None or self._agents.alive(agent_id):
                return False
            await self._dead.fail(agent, LOST, "crash", "AGENT_LOST")
            return True

    async def _entries(self) -> AsyncGenerator[list[str], None]:
        """Those of which the task says something else."""
        waiting: list[str] = []
        cursor: str | None = None
        while True:
            page = await self._store.find(QueueEntry, [], order=("id",), limit=PAGE, cursor=cursor)
            tasks = await tasks_of(self._store, [entry.id for entry in page.rows])
            waiting += [entry.id for entry in page.rows if entry.not_before is not None]
            yield [entry.id for entry in page.rows if self._differs(entry, tasks.get(entry.id))]
            cursor = page.next_cursor
            if cursor is None:
                break
        self._backoffs.keep_only(waiting)

    def _differs(self, entry: QueueEntry, task: Task | None) -> bool:
        if task is None:
            return False
        if entry.state == "running":
            held = task.state == "IN_PROGRESS" and task.assigned_agent_id == entry.agent_id
            return not held or not self._agents.alive(entry.agent_id or "")
        wanted = in_step(entry, task, self._settings.ageing_s)
        return task.state != "TODO" or wanted.agent_type is None or wanted is not entry

    async def _tasks(self) -> AsyncGenerator[list[str], None]:
        """Those that belong into the queue and are not in it, oldest first."""
        cursor: str | None = None
        while True:
            page = await self._store.find(Task, [("state", "=", "TODO")], limit=PAGE, cursor=cursor)
            wanted = [task.id for task in page.rows if task.agent_type is not None]
            there = await self._store.find(QueueEntry, [("id", "in", wanted)], order=("id",), limit=PAGE)
            known = {entry.id for entry in there.rows}
            yield [task_id for task_id in wanted if task_id not in known]
            cursor = page.next_cursor
            if cursor is None:
                return
