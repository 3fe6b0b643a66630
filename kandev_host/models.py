"""The rows of the house: immutable structs, one per table of the store, fields as in the Kandev plan (section 7).

Unknown is `None`, never 0 or "". Times are aware UTC datetimes. Ids are UUID strings (version 7, so that they
sort by creation). To change a row, `msgspec.structs.replace` it and hand the new one to the journal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from uuid_utils import uuid7

TaskState = Literal["TODO", "IN_PROGRESS", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED"]
AgentStatus = Literal["PENDING", "STARTING", "RUNNING", "COMPLETED", "FAILED", "STOPPED"]
Activity = Literal["starting", "idle", "prompting", "waiting_permission", "stopping"]
TurnState = Literal["queued", "running", "ended", "failed", "cancelled"]
PermissionState = Literal["pending", "allowed", "rejected", "cancelled"]
LogLevel = Literal["debug", "info", "warning", "error"]
UsageSource = Literal["agent", "gateway"]
QueueState = Literal["waiting", "running"]

# Why a run failed; what is worth another attempt is decided in `services.orchestration.retry`.
Failure = Literal[
    "crash",  # the agent's process ended by itself, or broke the protocol
    "unavailable",  # the runtime, the workspace or the model service could not be used just now
    "rate_limit",  # the model service said: later
    "stalled",  # silent for too long
    "host_died",  # the host was killed while it ran
    "config",  # the agent, its log-in, its model or the repository is set up wrongly
    "turn",  # the agent said that its turn failed, and nothing says that another attempt would do better
]

LOCAL_USER_ID = "00000000-0000-7000-8000-000000000001"
LIVE_STATUSES: tuple[AgentStatus, ...] = ("PENDING", "STARTING", "RUNNING")


def new_id() -> str:
    """A new UUID of version 7, as a string."""
    return str(uuid7())


def now() -> datetime:
    """The present time, aware, in UTC. For records only: waiting is done on monotonic clocks."""
    return datetime.now(UTC)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all rows: `id` is the primary key."""

    id: str = msgspec.field(default_factory=new_id)
    created_at: datetime = msgspec.field(default_factory=now)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resource limits of one agent: "1.5" CPUs, "2g" of memory, "10g" of disk; None is the runtime's default."""

    cpu_limit: str | None = None
    memory_limit: str | None = None
    disk_limit: str | None = None


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
    """`state_reason` says why a task is BLOCKED or FAILED, for a person."""

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


class AgentInstance(Row, frozen=True, kw_only=True):
    """One run of an agent for a task. `orchestrated` runs end with their turn; others wait for the next prompt.

    `attempt` says which attempt at its task it is, of an orchestrated run; `failure` of what kind its end was, and
    `stalled_at` since when it has said nothing (None while it talks).
    `process_ref` is what the runtime needs to find the process again (opaque); `container_id` and
    `container_name` are the plan's, and set by container runtimes only.
    """

    task_id: str
    agent_type: str
    runtime: str
    status: AgentStatus = "PENDING"
    activity: Activity | None = None
    orchestrated: bool = False
    container_id: str | None = None
    container_name: str | None = None
    image_name: str | None = None
    process_ref: str | None = None
    session_id: str | None = None
    resource_limits: Limits = Limits()
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    exit_code: int | None = None
    error_message: str | None = None
    failure: Failure | None = None
    attempt: int = 1
    stalled_at: datetime | None = None
    updated_at: datetime = msgspec.field(default_factory=now)


class AgentLog(Row, frozen=True, kw_only=True):
    """One line an agent wrote to stderr, or that the host noted about it."""

    agent_instance_id: str
    log_level: LogLevel = "info"
    message: str
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Session(Row, frozen=True, kw_only=True):
    """One ACP session. `acp_session_id` is the agent's own id; the JSON fields are as the agent sent them."""

    agent_id: str
    task_id: str
    acp_session_id: str
    cwd: str
    protocol_version: int
    agent_info: dict[str, Any] | None = None
    agent_capabilities: dict[str, Any] = msgspec.field(default_factory=dict)
    modes: dict[str, Any] | None = None
    config_options: list[dict[str, Any]] | None = None
    commands: list[dict[str, Any]] | None = None
    closed_at: datetime | None = None


class Turn(Row, frozen=True, kw_only=True):
    """One prompt and what came of it. `prompt` holds ACP content blocks; `stop_reason` is ACP's."""

    agent_id: str
    task_id: str
    session_id: str | None = None
    prompt: list[dict[str, Any]]
    state: TurnState = "queued"
    stop_reason: str | None = None
    error: str | None = None
    created_by: str
    started_at: datetime | None = None
    ended_at: datetime | None = None


class PermissionRequest(Row, frozen=True, kw_only=True):
    """ACP session/request_permission. `digest` binds the answer to what was shown: session, call, input, options.

    `decided_by` is a principal's id, or "policy"; `reason` says which rule.
    """

    agent_id: str
    task_id: str
    turn_id: str | None = None
    session_id: str
    tool_call: dict[str, Any]
    options: list[dict[str, Any]]
    digest: str
    state: PermissionState = "pending"
    option_id: str | None = None
    decided_by: str | None = None
    reason: str | None = None
    resolved_at: datetime | None = None


class Usage(Row, frozen=True, kw_only=True):
    """What one turn used, from one authoritative source; None is unknown. `cost` is decimal text in `currency`."""

    turn_id: str
    agent_id: str
    task_id: str
    source: UsageSource
    provider: str | None = None
    model: str | None = None
    request_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    cached_read_tokens: int | None = None
    cached_write_tokens: int | None = None
    total_tokens: int | None = None
    context_used: int | None = None
    context_size: int | None = None
    cost: str | None = None
    currency: str | None = None
    raw: dict[str, Any] = msgspec.field(default_factory=dict)


class Workspace(Row, frozen=True, kw_only=True):
    """The place a task's agents work in; `id` is the task's id. `base_commit` is what `workspace.diff` starts from."""

    runtime: str
    repository_url: str | None = None
    branch: str | None = None
    base_branch: str | None = None
    base_commit: str | None = None


class AgentTypeRow(Row, frozen=True, kw_only=True):
    """What users changed about an agent type (`name` is unique); the type itself comes from a plugin.

    `default_resources` None are those of plugin and settings. `enabled` does not enable what the settings disable.
    """

    name: str
    description: str | None = None
    docker_image: str | None = None
    docker_tag: str | None = None
    default_resources: Limits | None = None
    environment_vars: dict[str, str] = msgspec.field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    enabled: bool = True
    updated_at: datetime = msgspec.field(default_factory=now)


class QueueEntry(Row, frozen=True, kw_only=True):
    """A task that the orchestrator runs, waiting or running; `id` is the task's id, `created_at` when it came in.

    A run holds a lease on its entry: `host_id` (this start of the host), `agent_id` and `fence`, which grows with
    every claim, and from one entry of a task to the next. Whoever claims or ends an entry expects the fence it saw, so
    that a task never runs twice.
    `attempt` is how many runs were begun, without those of which the host died or was shut down; `host_deaths` how
    many it died of since then. `not_before` is the earliest next one, `reason` why the last one failed.
    The earliest `rank` is next: the time it came in, moved back for its priority. A `pinned` agent type was named
    when it was queued or started, and stays whatever the task says.
    """

    board_id: str
    priority: int = 0
    rank: datetime = msgspec.field(default_factory=now)
    agent_type: str | None = None
    pinned: bool = False
    runtime: str | None = None
    preset: str | None = None
    state: QueueState = "waiting"
    attempt: int = 0
    host_deaths: int = 0
    fence: int = 0
    host_id: str | None = None
    agent_id: str | None = None
    not_before: datetime | None = None
    reason: str | None = None
    failure: Failure | None = None
    created_by: str
    updated_at: datetime = msgspec.field(default_factory=now)


class Command(Row, frozen=True, kw_only=True):
    """A command that an agent or a shell ran in a workspace, as searched for."""

    task_id: str
    agent_id: str | None = None
    turn_id: str | None = None
    command: str


class Receipt(Row, frozen=True, kw_only=True):
    """The answer to one request that changed something; `id` is PRINCIPAL/REQUEST (protocol.md: envelope).

    `digest` is of its payload. Without a `reply` (JSON text) the host died before it knew the outcome. `topics` are
    what the caller's socket followed since.
    """

    action: str
    digest: str
    reply: str | None = None
    is_error: bool = False
    topics: tuple[str, ...] = ()


class HostState(Row, frozen=True, kw_only=True):
    """Something that the host itself remembers over restarts, by name; as little as possible."""

    value: dict[str, Any] = msgspec.field(default_factory=dict)
    updated_at: datetime = msgspec.field(default_factory=now)


ROWS: tuple[type[Row], ...] = (
    User, Board, Column, Task, TaskEvent, AgentTypeRow, AgentInstance, AgentLog, Session, Turn,
    PermissionRequest, Usage, Workspace, QueueEntry, Command, Receipt, HostState,
)  # fmt: skip
