"""Entries of the queue: made, ranked and told of. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from kandev_host.events import Event, event
from kandev_host.models import QueueEntry, Task, now
from kandev_host.protocol.notifications import QueueNotice

LONGEST_S = 100 * 365 * 86_400.0


def rank(since: datetime, priority: int, ageing_s: float) -> datetime:
    """Where an entry stands; the earliest is next.

    The time it came in, moved back by `ageing_s` for each step of priority. So priority counts first and age second,
    and every `ageing_s` of waiting is worth one step: nothing starves.
    """
    return since - timedelta(seconds=min(priority * ageing_s, LONGEST_S))


def new_entry(
    task: Task,
    ageing_s: float,
    created_by: str,
    *,
    agent_type: str | None = None,
    runtime: str | None = None,
    preset: str | None = None,
    since: datetime | None = None,
) -> QueueEntry:
    """A task that comes in now, or that belongs into the queue `since` then and was not seen before.

    An `agent_type` that is given here stays, whatever the task says later.

    Its fence begins at the task's version, which grows with every claim too, and whenever a task leaves TODO. So an
    entry that comes after another has a higher fence, and who saw that one claims nothing of this.
    """
    at = now() if since is None else min(since, now())
    return QueueEntry(
        id=task.id,
        created_at=at,
        board_id=task.board_id,
        priority=task.priority,
        rank=rank(at, task.priority, ageing_s),
        agent_type=agent_type or task.agent_type,
        pinned=agent_type is not None,
        runtime=runtime,
        preset=preset,
        fence=task.version,
        created_by=created_by,
    )


def in_step(entry: QueueEntry, task: Task, ageing_s: float) -> QueueEntry:
    """The entry with the priority and agent type that its task has now."""
    agent_type = entry.agent_type if entry.pinned else task.agent_type
    place = rank(entry.created_at, task.priority, ageing_s)
    if (entry.priority, entry.agent_type, entry.rank) == (task.priority, agent_type, place):
        return entry
    return replace(entry, priority=task.priority, agent_type=agent_type, rank=place, updated_at=now())


def waiting_again(entry: QueueEntry, **changes: object) -> QueueEntry:
    """The entry, held by nobody."""
    return replace(entry, state="waiting", host_id=None, agent_id=None, updated_at=now(), **changes)


def waiting_anew(entry: QueueEntry) -> QueueEntry:
    """The entry, held by nobody, as if it had never been tried.

    But the preset `unattended` was given for so many hours, which its runs may have used up: it is to be given again.
    """
    preset = None if entry.preset == "unattended" and (entry.attempt or entry.resume_from) else entry.preset
    untried = {"attempt": 0, "host_deaths": 0, "not_before": None, "reason": None, "failure": None}
    return waiting_again(entry, preset=preset, resume_from=None, **untried)


def queue_event(task_id: str, board_id: str, entry: QueueEntry | None) -> Event:
    return event("orchestrator.updated", QueueNotice(task_id=task_id, entry=entry), task_id=task_id, board_id=board_id)
