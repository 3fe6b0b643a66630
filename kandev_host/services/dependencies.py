"""`blocked_by`: tasks that must be done first. They exist when they are named, and never wait for each other in a ring.

A task that is deleted blocks nobody any more: its id may stay in a list, and is then ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

from kandev_host.errors import Conflict, NotFound, ValidationFailed
from kandev_host.interfaces import Store
from kandev_host.models import Task
from kandev_host.services.rows import PAGE

FIELD = "blocked_by"


async def check_dependencies(
    store: Store, task_id: str, wanted: Sequence[str], present: Sequence[str] = ()
) -> tuple[str, ...]:
    """The ids without repeats. Raises `NotFound` for an unknown new one, `Conflict` for a ring."""
    unique = tuple(dict.fromkeys(wanted))
    for index, id in enumerate(wanted):
        if id == task_id:
            raise ValidationFailed(f"{FIELD}[{index}]", "A task cannot wait for itself")
        if id not in present and await store.get(Task, id) is None:
            raise NotFound("task", id, field=f"{FIELD}[{index}]")
    await _check_ring(store, task_id, unique)
    return unique


async def _check_ring(store: Store, task_id: str, wanted: Sequence[str]) -> None:
    waiting, seen = list(wanted), set(wanted)
    while waiting:
        some, waiting = waiting[:PAGE], waiting[PAGE:]
        found = await store.find(Task, [("id", "in", some)], order=("id",), limit=PAGE)
        ids = {id for task in found.rows for id in task.blocked_by}
        if task_id in ids:
            raise Conflict("These tasks would wait for each other for ever", state="cycle", field=FIELD)
        waiting += sorted(ids - seen)
        seen |= ids
