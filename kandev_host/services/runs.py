"""Which agents of a task live, and how to end them: what boards and tasks need to know before they go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from kandev_host.errors import Conflict
from kandev_host.interfaces import Op, Store
from kandev_host.models import LIVE_STATUSES, AgentInstance
from kandev_host.services.rows import every

Stop = Callable[[str, str], Awaitable[object]]


class LiveRuns:
    """`stop` is set by the agent service: (agent_id, reason) → ended, the process gone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.stop: Stop | None = None

    async def of_task(self, task_id: str) -> list[AgentInstance]:
        return await self._live([("task_id", "=", task_id)])

    async def everywhere(self) -> list[AgentInstance]:
        return await self._live([])

    async def _live(self, where: list[tuple[str, Op, object]]) -> list[AgentInstance]:
        return [row async for row in every(self._store, AgentInstance, [*where, ("status", "in", LIVE_STATUSES)])]

    async def end(self, agents: Sequence[AgentInstance], what: str, *, force: bool) -> None:
        """Stop all of them if `force`; else raise `Conflict` if there are any."""
        if agents and not force:
            raise Conflict(f"The {what} has running agents", state="running", agents=[agent.id for agent in agents])
        for agent in agents:
            if self.stop is None:
                continue
            try:
                await self.stop(agent.id, f"the {what} is deleted")
            except Conflict:
                continue  # it ended by itself; whoever asks again sees if not
