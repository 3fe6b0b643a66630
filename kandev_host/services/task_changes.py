"""What an update asks for, and how the audit history tells it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import asdict

from kandev_host.errors import PayloadTooLarge
from kandev_host.models import Task, TaskEvent, TaskState
from kandev_host.protocol.actions.tasks import TaskUpdate
from kandev_host.services.repositories import check_branch, parse_repository

_NOT_FIELDS = frozenset({"task_id", "expected_version"})
METADATA_LIMIT_BYTES = 64 << 10
_LONG = frozenset({"description", "metadata"})


def check_fields(repository_url: str | None, branch: str | None, metadata: dict[str, object] | None) -> None:
    """What can be said without looking at disk or network."""
    if repository_url is not None:
        parse_repository(repository_url)
    if branch is not None:
        check_branch(branch)
    if metadata is not None and len(msgspec.json.encode(metadata)) > METADATA_LIMIT_BYTES:
        raise PayloadTooLarge("metadata is too large", METADATA_LIMIT_BYTES, "metadata")


def changed_fields(request: TaskUpdate) -> dict[str, Any]:
    """The fields that the request names."""
    return {key: value for key, value in asdict(request).items() if key not in _NOT_FIELDS and value is not UNSET}


def describe(task: Task, changes: dict[str, Any]) -> dict[str, Any]:
    """Old and new value of each field that differs; long ones by name only."""
    present = asdict(task)
    differing = {key: value for key, value in changes.items() if present[key] != value}
    return {key: {} if key in _LONG else {"old": present[key], "new": value} for key, value in differing.items()}


def placed(old: Task, new: Task) -> dict[str, Any]:
    """Where it came from and where it went, if it moved."""
    if (old.column_id, old.position) == (new.column_id, new.position):
        return {}
    return {
        "column_id": {"old": old.column_id, "new": new.column_id},
        "position": {"old": old.position, "new": new.position},
    }


def line(task: Task, event_type: str, actor: str, **fields: Any) -> TaskEvent:
    """The line of history that goes with this version of a task."""
    return TaskEvent(task_id=task.id, version=task.version, event_type=event_type, created_by=actor, **fields)


def moved_line(old: Task, new: Task, actor: str, state: TaskState | None = None) -> TaskEvent:
    """The line of history for a task in a new place, and in a new `state` if that changed with it."""
    if state is None:
        return line(new, "moved", actor, metadata=placed(old, new))
    return line(new, "state_changed", actor, old_state=old.state, new_state=state, metadata=placed(old, new))
