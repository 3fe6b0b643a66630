"""Making queue and tasks agree, one task at a time: level-triggered, so that it never matters what was missed.

It looks at the rows of a task, its entry and its run, and does what they call for. Doing it twice changes nothing.
"""

from __future__ import annotations

from kandev_host.interfaces import Expect, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import LIVE_STATUSES, AgentInstance, QueueEntry, Task
from kandev_host.services.agents import AgentService
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.conclusions import Conclusions
from kandev_host.services.orchestration.entries import in_step, new_entry, queue_event, waiting_anew
from kandev_host.services.orchestration.lease import release, taken, unchanged
from kandev_host.settings import OrchestratorSettings


class Settler:
    def __init__(
        self,
        store: Store,
        journal: Journal,
        locks: Locks,
        settings: OrchestratorSettings,
        agents: AgentService,
        conclusions: Conclusions,
    ) -> None:
        self._store = store
        self._journal = journal
        self._locks = locks
        self._settings = settings
        self._agents = agents
        self._conclusions = conclusions

    async def settle(self, task_id: str) -> bool:
        """Put the task into the queue, out of it, or right within it. True: look again soon, its run is ending.

        Raises `Conflict` when somebody else was faster; then there is an event to settle by.
        """
        async with self._locks.hold(f"task:{task_id}"):
            task = await self._store.get(Task, task_id)
            if task is None:
                return False
            entry = await self._store.get(QueueEntry, task_id)
            if entry is None:
                await self._enter(task)
            elif entry.state == "running":
                return await self._settle_running(task, entry)
            else:
                await self._settle_waiting(task, entry)
            return False

    async def _enter(self, task: Task) -> None:
        if task.state != "TODO" or task.agent_type is None or not self._settings.auto_start:
            return
        entry = new_entry(task, self._settings.ageing_s, task.created_by, since=task.updated_at)
        left = Expect(Task, task.id, taken(task.id), "state", ("TODO",))
        await self._journal.record(Put(entry), queue_event(task.id, task.board_id, entry), expect=[left])

    async def _settle_waiting(self, task: Task, entry: QueueEntry) -> None:
        wanted = in_step(entry, task, self._settings.ageing_s)
        if task.state != "TODO" or wanted.agent_type is None:
            await self._leave(entry)
        elif wanted is not entry:
            await self._write(entry, wanted)

    async def _settle_running(self, task: Task, entry: QueueEntry) -> bool:
        """A run whose end was not concluded is concluded; a task that a person took away from it loses it."""
        if task.state == "IN_PROGRESS" and task.assigned_agent_id == entry.agent_id:
            agent = await self._store.get(AgentInstance, entry.agent_id or "")
            if agent is None:
                await self._leave(entry)
                return False
            if self._agents.alive(agent.id):
                return agent.status not in LIVE_STATUSES
            if agent.status not in LIVE_STATUSES:
                await self._conclusions.of_ended(agent)
                self._agents.ended_by.pop(agent.id, None)
            return False
        if task.state == "TODO" and self._settings.auto_start and task.agent_type is not None:
            await self._write(entry, in_step(waiting_anew(entry), task, self._settings.ageing_s))
        else:
            await self._leave(entry)
        return False

    async def _write(self, seen: QueueEntry, entry: QueueEntry) -> None:
        told = queue_event(entry.id, entry.board_id, entry)
        await self._journal.record(Put(entry), told, expect=unchanged(seen, taken(seen.id)))

    async def _leave(self, entry: QueueEntry) -> None:
        await self._journal.record(*release(entry), expect=unchanged(entry, taken(entry.id)))
