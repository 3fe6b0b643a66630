"""The rules of task states (docs/protocol.md: allowed task transitions). Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from kandev_host.errors import Conflict
from kandev_host.models import Task, TaskState

FINISHED: frozenset[TaskState] = frozenset({"COMPLETED", "FAILED", "CANCELLED"})

_OPEN: dict[TaskState, frozenset[TaskState]] = {
    "TODO": frozenset({"IN_PROGRESS", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED"}),
    "IN_PROGRESS": frozenset({"TODO", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED"}),
    "BLOCKED": frozenset({"TODO", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED"}),
}


def check_transition(task: Task, state: TaskState, *, by_prompt: bool = False) -> None:
    """Raise `Conflict` unless `task` may become `state`; a prompt or resume reopens a finished one."""
    allowed = _OPEN.get(task.state)
    if allowed is None:
        allowed = frozenset({"TODO", "IN_PROGRESS"} if by_prompt else {"TODO"})
    if state not in allowed:
        raise Conflict(f"A task that is {task.state} cannot become {state}", state=task.state, allowed=sorted(allowed))


def with_state(task: Task, state: TaskState, reason: str | None, at: datetime) -> Task:
    """The task in its new state, with the times that go with it."""
    started, completed = task.started_at, task.completed_at
    if state == "TODO":
        started, completed = None, None
    elif state == "IN_PROGRESS":
        started, completed = (started if task.state == "BLOCKED" and started else at), None
    elif state in FINISHED:
        completed = at
    return replace(task, state=state, state_reason=reason, started_at=started, completed_at=completed)


def check_version(kind: str, row: Any, expected: int | None) -> None:
    """Raise `Conflict` when the caller saw an older version than the present one."""
    if expected is not None and row.version != expected:
        raise Conflict(
            f"This {kind} was changed by someone else meanwhile",
            state=f"version {row.version}",
            version=row.version,
            expected_version=expected,
        )
