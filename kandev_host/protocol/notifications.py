"""Every notification of the protocol: its name, the type of its payload, its topics, and whether it is kept.

What the host sends is validated against these by a test; the schema and the documentation's table are made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from kandev_host.models import (
    Activity,
    AgentInstance,
    AgentStatus,
    Board,
    Column,
    LogLevel,
    PermissionRequest,
    QueueEntry,
    Task,
    TaskState,
    Usage,
    Workspace,
)

Topic = Literal["task", "board", "agent"]


class BoardNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The board after the change; of a deleted one, its last state."""

    board: Board


class ColumnNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The column after the change; of a deleted one, its last state."""

    column: Column


class TaskNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The task after the change; of a deleted one, its last state."""

    task: Task


class TaskStateNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The task after the change; `task.state_reason` says why, where there is a reason."""

    task: Task
    old_state: TaskState
    new_state: TaskState


class AgentNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The agent after the change, with status, activity, exit_code and error_message."""

    agent: AgentInstance
    agent_id: str
    task_id: str


class PermissionNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The request with its tool call and options; once resolved, with its outcome."""

    permission: PermissionRequest
    agent_id: str
    task_id: str


class WorkspaceNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The task's workspace was made."""

    workspace: Workspace
    task_id: str


class QueueNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The task's entry in the orchestrator's queue; null once it has left it."""

    task_id: str
    entry: QueueEntry | None


class Payload(msgspec.Struct, gc=False, kw_only=True):
    """Flat fields of every acp notification. `session_id` is the agent's own id; `meta` stood beside the update."""

    agent_id: str
    task_id: str
    turn_id: str | None = None
    session_id: str | None = None
    update: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET


class LogMetadata(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """What an acp.log is about: the update's variant, and what that variant has. `by_host`: no agent said this."""

    type: str
    message_id: str | None = None
    tool_call_id: str | None = None
    title: str | None = None
    kind: str | None = None
    status: str | None = None
    truncated: bool = False
    by_host: bool = False


class LogPayload(Payload, gc=False, kw_only=True):
    """A message, a thought, a tool call or anything else that the agent says; the update is under `update`."""

    level: LogLevel = "info"
    message: str = ""
    metadata: LogMetadata


class ProgressPayload(Payload, gc=False, kw_only=True):
    """`progress` counts the finished entries of the plan, 0 to 100. A plan names no files."""

    progress: int
    message: str
    current_file: str | None = None
    files_processed: int | None = None
    total_files: int | None = None


class StatusPayload(Payload, gc=False, kw_only=True):
    """What the agent is and does now; with a mode, option, title or usage update, that update too.

    `stalled_at` says since when a prompted agent is silent; null while it talks.
    """

    status: AgentStatus
    activity: Activity | None
    stalled_at: datetime | None = None


class ResultPayload(Payload, gc=False, kw_only=True):
    """The end of a turn. `stop_reason` is the agent's word, `status` what the host makes of it."""

    status: str
    stop_reason: str | None
    summary: str | None
    artifacts: list[Any]
    usage: Usage | None


class ErrorPayload(Payload, gc=False, kw_only=True):
    """A failed turn, a dead agent or a fault of its protocol."""

    code: str
    message: str


class HeartbeatPayload(Payload, gc=False, kw_only=True):
    """`last_update_age_s` says how long the agent has been silent; null is unknown."""

    alive: bool
    cpu_s: float | None
    rss_bytes: int | None
    last_update_age_s: float | None


@dataclass(frozen=True, slots=True)
class Notification:
    """`topics` are those it is delivered to, besides `*`; `transient` ones have no `seq` and are not replayed."""

    name: str
    payload: type[msgspec.Struct]
    topics: tuple[Topic, ...]
    summary: str
    transient: bool = False


_BOARD: tuple[Topic, ...] = ("board",)
_TASK: tuple[Topic, ...] = ("task", "board")
_AGENT: tuple[Topic, ...] = ("task", "agent")

_LIST = (
    Notification("board.created", BoardNotice, _BOARD, "A board was made, with its default columns"),
    Notification("board.updated", BoardNotice, _BOARD, "A board was changed"),
    Notification("board.deleted", BoardNotice, _BOARD, "A board was deleted, with its columns and tasks"),
    Notification("column.created", ColumnNotice, _BOARD, "A column was added"),
    Notification("column.updated", ColumnNotice, _BOARD, "A column was changed or moved"),
    Notification("column.deleted", ColumnNotice, _BOARD, "A column was deleted"),
    Notification("task.created", TaskNotice, _TASK, "A task was made"),
    Notification("task.updated", TaskNotice, _TASK, "Fields, place or agent of a task were changed, not its state"),
    Notification("task.state_changed", TaskStateNotice, _TASK, "A task came into another state"),
    Notification("task.deleted", TaskNotice, _TASK, "A task was deleted"),
    Notification("agent.updated", AgentNotice, _AGENT, "Status or activity of an agent changed"),
    Notification("orchestrator.updated", QueueNotice, _TASK, "A task entered the queue, changed in it, or left it"),
    Notification("permission.requested", PermissionNotice, _AGENT, "An agent asks and waits for an answer"),
    Notification("permission.resolved", PermissionNotice, _AGENT, "A permission request was answered or withdrawn"),
    Notification("workspace.updated", WorkspaceNotice, _TASK, "The workspace of a task is there"),
    Notification("acp.progress", ProgressPayload, _AGENT, "The agent's plan (ACP `plan`)"),
    Notification(
        "acp.log", LogPayload, _AGENT, "Message, thought and user chunks; tool calls and their updates; commands"
    ),
    Notification("acp.result", ResultPayload, _AGENT, "The end of a turn"),
    Notification("acp.error", ErrorPayload, _AGENT, "A failed turn, a dead agent, a protocol fault"),
    Notification("acp.status", StatusPayload, _AGENT, "Activity, mode, option, session and usage updates"),
    Notification("acp.heartbeat", HeartbeatPayload, _AGENT, "A running agent lives (every 15 s)", transient=True),
)

NOTIFICATIONS: dict[str, Notification] = {each.name: each for each in _LIST}
