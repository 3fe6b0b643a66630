"""What an update asks for, and how the audit history tells it."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET
from msgspec.structs import asdict

from kandev_host.models import Task
from kandev_host.protocol.actions.tasks import TaskUpdate

_NOT_FIELDS = frozenset({"task_id", "expected_version"})
_LONG = frozenset({"description", "metadata"})


def changed_fields(request: TaskUpdate) -> dict[str, Any]:
    """The fields that the request names."""
    return {key: value for key, value in asdict(request).items() if key not in _NOT_FIELDS and value is not UNSET}


def describe(task: Task, changes: dict[str, Any]) -> dict[str, Any]:
    """Old and new value of each field that differs; long ones by name only."""
    present = asdict(task)
    differing = {key: value for key, value in changes.items() if present[key] != value}
    return {key: {} if key in _LONG else {"old": present[key], "new": value} for key, value in differing.items()}
