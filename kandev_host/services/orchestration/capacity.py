"""How many agents live, where, and whether the queue may start one more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from kandev_host.models import AgentInstance, QueueEntry, Task
from kandev_host.settings import OrchestratorSettings

Scope = Literal["task", "host", "agent_type", "board"]


class Full(msgspec.Struct, frozen=True):
    """The bound that is reached: `used` of `limit` agents."""

    scope: Scope
    limit: int
    used: int


class Occupancy(msgspec.Struct):
    """The live agents by type, board and task.

    All of them count, also those that people started by hand: only the queue is bound by it. An agent that idles
    because its task is BLOCKED waits for a person, may do so for days, and takes nobody's place meanwhile.
    """

    total: int = 0
    types: Counter[str] = msgspec.field(default_factory=Counter)
    boards: Counter[str] = msgspec.field(default_factory=Counter)
    tasks: set[str] = msgspec.field(default_factory=set)

    def take(self, agent_type: str | None, board_id: str) -> None:
        """One more."""
        self.total += 1
        self.types[agent_type or ""] += 1
        self.boards[board_id] += 1


def occupancy(agents: Sequence[AgentInstance], tasks: dict[str, Task]) -> Occupancy:
    """Of these live agents, whose tasks are in `tasks` by id."""
    found = Occupancy()
    for agent in agents:
        found.tasks.add(agent.task_id)
        task = tasks.get(agent.task_id)
        if agent.activity == "idle" and task is not None and task.state == "BLOCKED":
            continue
        found.take(agent.agent_type, task.board_id if task is not None else "")
    return found


class Capacity:
    """The bounds of the settings. `type_limit` answers the most agents of one type, None for no limit of its own."""

    def __init__(self, settings: OrchestratorSettings, type_limit: Callable[[str], int | None]) -> None:
        self._settings = settings
        self.type_limit = type_limit

    def full(self, used: Occupancy) -> Full | None:
        """The bound of the whole host, if it is reached."""
        limit = self._settings.max_agents
        return Full("host", limit, used.total) if used.total >= limit else None

    def full_for(self, entry: QueueEntry, used: Occupancy) -> Full | None:
        """The first bound that keeps this entry waiting."""
        if entry.id in used.tasks:
            return Full("task", 1, 1)
        return self.full(used) or self._of_type(entry, used) or self._of_board(entry, used)

    def _of_type(self, entry: QueueEntry, used: Occupancy) -> Full | None:
        limit = self.type_limit(entry.agent_type or "")
        count = used.types[entry.agent_type or ""]
        return None if limit is None or count < limit else Full("agent_type", limit, count)

    def _of_board(self, entry: QueueEntry, used: Occupancy) -> Full | None:
        limit, count = self._settings.max_agents_per_board, used.boards[entry.board_id]
        return None if limit is None or count < limit else Full("board", limit, count)
