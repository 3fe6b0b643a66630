"""Users, boards, columns, tasks and what happened to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from kandev_host.models.base import Row, now

TaskState = Literal["TODO", "IN_PROGRESS", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED"]
LOCAL_USER_ID = "00000000-0000-7000-8000-000000000001"


class User(Row, frozen=True, kw_only=True):
    email: str
    username: str
    password_hash: str | None = None
    updated_at: datetime = msgspec.field(default_factory=now)


class Board(Row, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    owner_id: str
    version: int = 1
    updated_at: datetime = msgspec.field(default_factory=now)


class Column(Row, frozen=True, kw_only=True):
    """`state` is the task state that this column stands for, if any; `position` is dense from 0."""

    board_id: str
    name: str
    position: int
    wip_limit: int | None = None
    state: TaskState | None = None
    version: int = 1
    updated_at: datetime = msgspec.field(default_factory=now)


class Task(Row, frozen=True, kw_only=True):
    """`state_reason` says why a task is BLOCKED or FAILED, for a person.

    `mcp_servers`, `directories` and `credentials` name those of the settings that its agents have beside their own, and
    `allow` what they may reach beside what theirs may.
    """

    board_id: str
    column_id: str | None = None
    position: int = 0
    title: str
    description: str
    state: TaskState = "TODO"
    state_reason: str | None = None
    priority: int = 0
    agent_type: str | None = None
    repository_url: str | None = None
    branch: str | None = None
    blocked_by: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    assigned_agent_id: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    version: int = 1
    created_by: str
    updated_at: datetime = msgspec.field(default_factory=now)
    started_at: datetime | None = None
    completed_at: datetime | None = None


class TaskEvent(Row, frozen=True, kw_only=True):
    """One line of a task's audit history: what made this `version` of it. `created_by` is a principal's id.

    The lines of a task are ordered by `version`, whatever the clock did; 0 is from before they were counted.
    """

    task_id: str
    version: int = 0
    event_type: str
    old_state: TaskState | None = None
    new_state: TaskState | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    created_by: str
