"""One run holds a task at a time: its lease is the queue's entry, and its fencing token the entry's `fence`.

The rules are preconditions of the commits, so the store itself evaluates them inside the writing transaction:
whoever claims expects the fence it saw, and whoever ends expects that it still holds task and entry. A run that lost
its lease can therefore conclude nothing, however late it comes. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from kandev_host.errors import Conflict
from kandev_host.interfaces import Change, Expect, Put, Remove
from kandev_host.models import AgentInstance, QueueEntry, Task, TaskState, now
from kandev_host.services.orchestration.entries import new_entry, queue_event


class Claim(msgspec.Struct, frozen=True):
    """What goes into the commit that gives a task to a run. `only_from` are the states in which it may be taken."""

    changes: Sequence[Change] = ()
    expect: Sequence[Expect] = ()
    only_from: tuple[TaskState, ...] = ()


def taken(task_id: str) -> Conflict:
    return Conflict("Somebody else was faster with this task", state="claimed", task_id=task_id)


def unchanged(entry: QueueEntry, error: Conflict) -> list[Expect]:
    """The entry is as it was seen: nobody has claimed or ended it."""
    return [
        Expect(QueueEntry, entry.id, error, "fence", (entry.fence,)),
        Expect(QueueEntry, entry.id, error, "state", (entry.state,)),
    ]


class Leases:
    """Claims of this start of the host."""

    def __init__(self, host_id: str, ageing_s: float) -> None:
        self.host_id = host_id
        self._ageing_s = ageing_s

    def queued(self, entry: QueueEntry, agent: AgentInstance) -> Claim:
        """The queue starts what waits in it."""
        return self._held(entry, agent, unchanged(entry, taken(entry.id)), ("TODO",))

    def by_hand(
        self,
        task: Task,
        entry: QueueEntry | None,
        agent: AgentInstance,
        created_by: str,
        *,
        agent_type: str | None,
        preset: str | None,
    ) -> Claim:
        """A person starts a run that the orchestrator takes to its end; the count of attempts starts anew."""
        fresh = new_entry(task, self._ageing_s, created_by, agent_type=agent_type, preset=preset)
        if entry is None:
            return self._held(fresh, agent, ())
        fresh = replace(fresh, created_at=entry.created_at, rank=entry.rank, fence=entry.fence)
        return self._held(fresh, agent, unchanged(entry, taken(entry.id)))

    @staticmethod
    def launch(entry: QueueEntry | None) -> Claim:
        """A person takes a task for an agent of their own: it leaves the queue."""
        return Claim() if entry is None else Claim(release(entry), unchanged(entry, taken(entry.id)))

    def _held(
        self,
        entry: QueueEntry,
        agent: AgentInstance,
        expect: Sequence[Expect],
        only_from: tuple[TaskState, ...] = (),
    ) -> Claim:
        held = replace(
            entry,
            state="running",
            attempt=agent.attempt,
            fence=entry.fence + 1,
            host_id=self.host_id,
            agent_id=agent.id,
            not_before=None,
            updated_at=now(),
        )
        return Claim((Put(held), queue_event(held.id, held.board_id, held)), expect, only_from)


def release(entry: QueueEntry) -> tuple[Change, ...]:
    """The entry leaves the queue."""
    return Remove(QueueEntry, entry.id), queue_event(entry.id, entry.board_id, None)


def holding(agent: AgentInstance, entry: QueueEntry | None) -> list[Expect]:
    """The run still has its task, and its lease if it has one."""
    late = Conflict("This run has lost its task", state="fenced", agent_id=agent.id)
    expect = [Expect(Task, agent.task_id, late, "assigned_agent_id", (agent.id,))]
    if entry is not None:
        expect += [Expect(QueueEntry, entry.id, late, "agent_id", (agent.id,)), *unchanged(entry, late)]
    return expect
