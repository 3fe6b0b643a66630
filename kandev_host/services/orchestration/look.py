"""One look at the queue: what each entry waits for. Tasks and blockers are read in bulk, agent types asked for once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kandev_host.interfaces import AgentType, Availability, Store
from kandev_host.models import QueueEntry, Task
from kandev_host.protocol.actions.orchestrator import Blocker, WaitingFor
from kandev_host.services.agents import AgentService
from kandev_host.services.orchestration.capacity import Capacity, Full, Occupancy, occupancy
from kandev_host.services.orchestration.clock import Backoffs
from kandev_host.services.orchestration.pause import PAUSED, Pause
from kandev_host.services.runs import LiveRuns

CHUNK = 500

FULL = {
    "task": "An agent still lives for this task",
    "host": "As many agents live as the queue may start",
    "agent_type": "As many agents of this type live as the queue may start",
    "board": "As many agents live on this board as the queue may start",
}


class Looks:
    """Makes them; holds what all of them need."""

    def __init__(
        self,
        store: Store,
        runs: LiveRuns,
        agents: AgentService,
        capacity: Capacity,
        backoffs: Backoffs,
        pause: Pause,
    ) -> None:
        self.store = store
        self.agents = agents
        self.capacity = capacity
        self.backoffs = backoffs
        self._runs = runs
        self.pause = pause

    async def take(self) -> Look:
        """How things are now."""
        counted_at = self._runs.starts.moment()
        live = await self._runs.everywhere()
        tasks = await tasks_of(self.store, {agent.task_id for agent in live})
        paused = (await self.pause.since()) is not None
        return Look(self, occupancy(live, tasks), paused=paused, counted_at=counted_at)


class Look:
    """`used` is kept up to date by the queue, which sets `outrun` once others have started something meanwhile."""

    def __init__(self, looks: Looks, used: Occupancy, *, paused: bool, counted_at: int) -> None:
        self._looks = looks
        self._tasks: dict[str, Task] = {}
        self._types: dict[str, Availability] = {}
        self.used = used
        self.paused = paused
        self.counted_at = counted_at
        self.outrun = False

    @property
    def free(self) -> bool:
        """Could anything be started at all?"""
        return not self.paused and not self.outrun and self._looks.capacity.full(self.used) is None

    def task(self, entry: QueueEntry) -> Task | None:
        return self._tasks.get(entry.id)

    async def load(self, entries: Sequence[QueueEntry]) -> None:
        """Read what these entries wait for."""
        self._tasks = await tasks_of(self._looks.store, {entry.id for entry in entries})
        blockers = {id for task in self._tasks.values() for id in task.blocked_by} - self._tasks.keys()
        self._tasks |= await tasks_of(self._looks.store, blockers)

    async def waiting_for(self, entry: QueueEntry) -> WaitingFor | None:
        """The first thing that keeps a loaded entry from being started."""
        return (
            self._blockers(entry)
            or self._backoff(entry)
            or await self._unavailable(entry)
            or (WaitingFor(kind="paused", reason=PAUSED) if self.paused else None)
            or self._full(entry)
        )

    def _blockers(self, entry: QueueEntry) -> WaitingFor | None:
        """A deleted blocker blocks nobody; one that is FAILED or CANCELLED does, until a person does something."""
        task = self._tasks.get(entry.id)
        found = [self._tasks[id] for id in (task.blocked_by if task is not None else ()) if id in self._tasks]
        open = [item for item in found if item.state != "COMPLETED"]
        waits = [Blocker(task_id=item.id, title=item.title, state=item.state) for item in open]
        if not waits:
            return None
        dead = [item for item in waits if item.state in {"FAILED", "CANCELLED"}]
        reason = f"{len(waits)} unfinished {'task' if len(waits) == 1 else 'tasks'} must be COMPLETED first"
        if dead:
            reason += f"; {len(dead)} of them {'has' if len(dead) == 1 else 'have'} ended without that"
        return WaitingFor(kind="task", reason=reason, tasks=waits)

    def _backoff(self, entry: QueueEntry) -> WaitingFor | None:
        if self._looks.backoffs.over(entry):
            return None
        reason = f"The next attempt comes later: {entry.reason}" if entry.reason else "The next attempt comes later"
        return WaitingFor(kind="backoff", reason=reason, until=entry.not_before)

    async def _unavailable(self, entry: QueueEntry) -> WaitingFor | None:
        name = entry.agent_type or ""
        if name not in self._types:
            self._types[name] = await self._availability(name, entry.runtime)
        found = self._types[name]
        if found.ok:
            return None
        return WaitingFor(kind="agent_unavailable", reason=found.reason or "The agent cannot be started", fix=found.fix)

    async def _availability(self, name: str, runtime: str | None) -> Availability:
        agents = self._looks.agents
        agent_type: AgentType | None = agents.types.get(name)
        if agent_type is None:
            return Availability(False, f"There is no agent type {name!r}", "Choose one of agent.types for the task")
        return await agents.types.availability(agent_type, runtime)

    def _full(self, entry: QueueEntry) -> WaitingFor | None:
        found: Full | None = self._looks.capacity.full_for(entry, self.used)
        if found is None:
            return None
        return WaitingFor(
            kind="capacity", reason=FULL[found.scope], scope=found.scope, used=found.used, limit=found.limit
        )


async def tasks_of(store: Store, ids: Iterable[str]) -> dict[str, Task]:
    """These tasks by id; deleted ones are missing."""
    wanted, found = list(ids), dict[str, Task]()
    for start in range(0, len(wanted), CHUNK):
        page = await store.find(Task, [("id", "in", wanted[start : start + CHUNK])], limit=CHUNK)
        found |= {task.id: task for task in page.rows}
    return found
