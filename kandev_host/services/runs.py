"""Which agents of a task live, and how to end them: what boards and tasks need to know before they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from kandev_host.errors import Conflict
from kandev_host.interfaces import Op, Store
from kandev_host.models import LIVE_STATUSES, AgentInstance, Task
from kandev_host.services.rows import every
from kandev_host.services.starts import Starts

Stop = Callable[[str, str], Awaitable[object]]
EndShells = Callable[[Collection[str], str, bool], Awaitable[None]]


class LiveRuns:
    """`stop` is set by the agent service: (agent_id, reason) → ended, the process gone. `end_shells` by that of the
    shells: (task ids, what is deleted, force).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.stop: Stop | None = None
        self.end_shells: EndShells | None = None
        self.starts = Starts()
        self._closing: Counter[str] = Counter()

    @contextmanager
    def closing(self, id: str) -> Iterator[None]:
        """Within this, nothing is started for the task or board of this id: it is about to be deleted."""
        self._closing[id] += 1
        try:
            yield
        finally:
            self._closing[id] -= 1
            if not self._closing[id]:
                del self._closing[id]

    def check_stays(self, task: Task) -> None:
        """Raise `Conflict` if the task or its board is about to be deleted."""
        if task.id in self._closing or task.board_id in self._closing:
            raise Conflict("The task or its workspace is being deleted", state="deleting", task_id=task.id)

    async def of_task(self, task_id: str) -> list[AgentInstance]:
        return await self._live([("task_id", "=", task_id)])

    async def check_none(self, task_id: str) -> None:
        """Raise `Conflict` if the task has a live agent."""
        live = await self.of_task(task_id)
        if live:
            told = f"The task has a live agent, {live[0].id}: prompt it, or stop it first"
            raise Conflict(told, state=live[0].status, agent_id=live[0].id)

    async def everywhere(self) -> list[AgentInstance]:
        return await self._live([])

    async def still_live(self, agent_id: str) -> AgentInstance | None:
        """Its row, if that says that it lives."""
        agent = await self._store.get(AgentInstance, agent_id)
        return agent if agent is not None and agent.status in LIVE_STATUSES else None

    async def _live(self, where: list[tuple[str, Op, object]]) -> list[AgentInstance]:
        return [row async for row in every(self._store, AgentInstance, [*where, ("status", "in", LIVE_STATUSES)])]

    async def end(self, agents: Sequence[AgentInstance], what: str, *, force: bool) -> None:
        """Stop all of them if `force`; else raise `Conflict` if there are any."""
        if agents and not force:
            running = [agent.id for agent in agents]
            raise Conflict(f"The {what} has running agents", state="running", agents=running, force="stops them first")
        for agent in agents:
            if self.stop is None:
                continue
            try:
                await self.stop(agent.id, f"the {what} is deleted")
            except Conflict:
                continue  # it ended by itself; whoever asks again sees if not

    async def close_shells(self, tasks: Collection[str], what: str, *, force: bool) -> None:
        """Close the shells in the workspaces of these if `force`; else raise `Conflict` if there are any."""
        if self.end_shells is not None:
            await self.end_shells(tasks, what, force)
