"""Every notification of the protocol: its name, the type of its payload, its topics, and whether it is kept.

What the host sends is validated against these by a test; the schema and the documentation's table are made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    Command,
    Elicitation,
    LogLevel,
    PermissionRequest,
    QueueEntry,
    ShellRow,
    Snapshot,
    Task,
    TaskState,
    Usage,
    Workspace,
)
from kandev_host.protocol.actions.credentials import CredentialVerb, CredentialWay
from kandev_host.protocol.actions.shells import ShellOutput
from kandev_host.protocol.actions.snapshots import Pushed

Topic = Literal["task", "board", "agent", "shell"]


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


class ElicitationNotice(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent asks for; once resolved, with its outcome, and never with what was filled in."""

    elicitation: Elicitation
    agent_id: str
    task_id: str


class WorkspaceNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The task's workspace was made, or has been deleted; then it is its last state."""

    workspace: Workspace
    task_id: str
    deleted: bool = False


class SnapshotNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the task's workspace; one with an error could not be taken."""

    snapshot: Snapshot
    task_id: str


class PushedNotice(msgspec.Struct, frozen=True, kw_only=True):
    """Where the commits of a task are now."""

    task_id: str
    pushed: Pushed


class QueueNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The task's entry in the orchestrator's queue; null once it has left it."""

    task_id: str
    entry: QueueEntry | None


class NetworkNotice(msgspec.Struct, frozen=True, kw_only=True):
    """Connections of one kind that an agent or a shell asked for, `count` of them since the last notification of it.

    `sent_bytes` and `received_bytes` are of those that ended since then; their count may be 0.

    `rule` is the entry of the allowlist that let it through, `address` what was dialled last; of a denial, `reason`
    says why, and `how_to_allow` what would allow it. The host `*` stands for further ones, counted together.
    """

    allowed: bool
    host: str
    port: int
    protocol: Literal["connect", "http", "socks5"]
    reason: str
    rule: str | None
    address: str | None
    how_to_allow: str | None
    count: int
    sent_bytes: int
    received_bytes: int
    task_id: str | None
    agent_id: str | None
    shell_id: str | None


class ImageNotice(msgspec.Struct, frozen=True, kw_only=True):
    """How far the pull of an image has come that an agent or a shell waits for; at most two a second, and its end.

    Bytes are those of the layers whose size is known so far, layers that were there already have none. A pull that
    several wait for is told to each. `message` says why it has failed.
    """

    image: str
    state: Literal["pulling", "pulled", "failed"]
    layers_done: int
    layers_total: int
    bytes_done: int
    bytes_total: int
    message: str
    task_id: str | None
    agent_id: str | None
    shell_id: str | None


class CredentialNotice(msgspec.Struct, frozen=True, kw_only=True):
    """An agent was given a credential of the host's, used one through the host, or was refused it: never the secret.

    `name` is the table of the settings, or `agent type` for what its type always has; `what` the repository, the
    variable or the file. `verb` is what was asked of a repository. `agent_id` is null for the clone of a workspace. The
    end of a transfer is told with its bytes.
    """

    name: str
    way: CredentialWay
    what: str
    verb: CredentialVerb | None
    allowed: bool
    reason: str
    sent_bytes: int
    received_bytes: int
    task_id: str
    agent_id: str | None


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


class WaitingPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that waits for its turn; `prompt_id` is that turn's id, `text` its beginning."""

    prompt_id: str
    position: int
    text: str
    created_by: str


class PromptsNotice(msgspec.Struct, frozen=True, kw_only=True):
    """All prompts that wait for this agent after the change, the next one first."""

    agent_id: str
    task_id: str
    prompts: list[WaitingPrompt]


class ShellNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The shell; once it is closed, with `reason` and, of a terminal, `exit_code`."""

    shell: ShellRow
    shell_id: str
    task_id: str | None


class CommandNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The command as it begins (`state` running), and once it has ended, with all that the audit has of it."""

    command: Command
    shell_id: str | None
    task_id: str | None
    agent_id: str | None = None


class Notification(msgspec.Struct, frozen=True):
    """`topics` are those it is delivered to, besides `*` (unless `only_topics`), and there to those who hold `scope`.

    `transient` ones have no `seq` and are not replayed.
    """

    name: str
    payload: type[msgspec.Struct]
    topics: tuple[Topic, ...]
    summary: str
    transient: bool = False
    only_topics: bool = False

    @property
    def scope(self) -> str:
        return _SCOPES[self.name.partition(".")[0]]


_SCOPES: Mapping[str, str] = {
    **dict.fromkeys(("board", "column"), "boards:read"),
    "task": "tasks:read",
    **dict.fromkeys(
        ("acp", "agent", "credential", "elicitation", "image", "network", "orchestrator", "permission", "queue"),
        "agents:read",
    ),
    "snapshot": "agents:read",
    "workspace": "workspaces:read",
    "shell": "shell:read",
}


_BOARD: tuple[Topic, ...] = ("board",)
_TASK: tuple[Topic, ...] = ("task", "board")
_AGENT: tuple[Topic, ...] = ("task", "agent")
_SHELL: tuple[Topic, ...] = ("shell", "task")

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
    Notification("queue.updated", PromptsNotice, _AGENT, "A prompt came to wait for an agent, changed, began or left"),
    Notification("orchestrator.updated", QueueNotice, _TASK, "A task entered the queue, changed in it, or left it"),
    Notification("permission.requested", PermissionNotice, _AGENT, "An agent asks and waits for an answer"),
    Notification("permission.resolved", PermissionNotice, _AGENT, "A permission request was answered or withdrawn"),
    Notification("elicitation.requested", ElicitationNotice, _AGENT, "An agent asks for words of a person, and waits"),
    Notification(
        "elicitation.resolved", ElicitationNotice, _AGENT, "It was answered or withdrawn; again when a url is done with"
    ),
    Notification("workspace.updated", WorkspaceNotice, _TASK, "The workspace of a task is there, or deleted"),
    Notification(
        "network.decided",
        NetworkNotice,
        (*_AGENT, "shell"),
        "A jail asked for a connection: it was let through, or denied",
    ),
    Notification(
        "image.pulling", ImageNotice, (*_AGENT, "shell"), "An image that is waited for is being pulled", transient=True
    ),
    Notification(
        "credential.used",
        CredentialNotice,
        _AGENT,
        "An agent had or used a credential of the host's, or was refused it",
    ),
    Notification("snapshot.created", SnapshotNotice, _TASK, "A snapshot of a workspace was taken, or could not be"),
    Notification("workspace.pushed", PushedNotice, _TASK, "Commits of a workspace were taken home"),
    Notification("acp.progress", ProgressPayload, _AGENT, "The agent's plan (ACP `plan`)"),
    Notification(
        "acp.log", LogPayload, _AGENT, "Message, thought and user chunks; tool calls and their updates; commands"
    ),
    Notification("acp.result", ResultPayload, _AGENT, "The end of a turn"),
    Notification("acp.error", ErrorPayload, _AGENT, "A failed turn, a dead agent, a protocol fault"),
    Notification("acp.status", StatusPayload, _AGENT, "Activity, mode, option, session and usage updates"),
    Notification("acp.heartbeat", HeartbeatPayload, _AGENT, "A running agent lives (every 15 s)", transient=True),
    Notification("shell.opened", ShellNotice, _SHELL, "A shell was opened"),
    Notification(
        "shell.command",
        CommandNotice,
        (*_AGENT, "shell"),
        "A command of a shell, or one that the host runs for an agent, began or ended",
    ),
    Notification(
        "shell.output", ShellOutput, ("shell",), "A shell put something out", transient=True, only_topics=True
    ),
    Notification("shell.exited", ShellNotice, _SHELL, "A shell was closed, or ended by itself"),
)

NOTIFICATIONS: dict[str, Notification] = {each.name: each for each in _LIST}
