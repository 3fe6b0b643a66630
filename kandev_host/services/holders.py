"""Who needs a task's workspace just now: what deletes one asks all of them first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from kandev_host.interfaces import Store
from kandev_host.models import QueueEntry
from kandev_host.protocol.actions.workspaces import HolderInfo, HolderKind
from kandev_host.services.runs import LiveRuns
from kandev_host.services.shells.service import ShellService

Find = Callable[[str], Awaitable[Sequence[str]]]
"""Of a task's id: the ids of those that need its workspace. Raises rather than answer with too few."""

End = Callable[[str, str], Awaitable[object]]
"""Of a task's id and one such id: ended for good, so that it needs the workspace no more."""


class Holders:
    """A kind of holder adds itself once, when the services are built."""

    def __init__(self) -> None:
        self._kinds: dict[HolderKind, tuple[Find, End | None]] = {}

    def add(self, kind: HolderKind, find: Find, end: End | None = None) -> None:
        """Without `end`, one of this kind does not mind that the workspace goes, if somebody insists."""
        self._kinds[kind] = (find, end)

    async def of(self, task_id: str) -> list[HolderInfo]:
        return [HolderInfo(kind=kind, id=id) for kind, (find, _) in self._kinds.items() for id in await find(task_id)]

    async def end(self, task_id: str, holders: Sequence[HolderInfo]) -> None:
        for holder in holders:
            _, end = self._kinds[holder.kind]
            if end is not None:
                await end(task_id, holder.id)


def workspace_holders(store: Store, runs: LiveRuns) -> Holders:
    """Live agents, and the entry of the queue: its next run goes on with what is in the workspace."""

    async def agents(task_id: str) -> list[str]:
        return [agent.id for agent in await runs.of_task(task_id)]

    async def stop(_task_id: str, agent_id: str) -> None:
        agent = await runs.still_live(agent_id)
        if agent is not None:
            await runs.end([agent], "workspace", force=True)

    async def queued(task_id: str) -> list[str]:
        return [] if await store.get(QueueEntry, task_id) is None else [task_id]

    holders = Holders()
    holders.add("agent", agents, stop)
    holders.add("queue", queued)
    return holders


def add_shells(holders: Holders, shells: ShellService) -> None:
    """The open shells."""

    async def end(_task_id: str, shell_id: str) -> None:
        await shells.end(shell_id)

    holders.add("shell", shells.in_workspace, end)
