"""agent.*, permission.*, orchestrator.* and workspace.diff."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw

from kandev_host.models import (
    Activity,
    AgentInstance,
    AgentLog,
    AgentStatus,
    Limits,
    LogLevel,
    PermissionRequest,
    PermissionRule,
    PermissionState,
    Session,
)
from kandev_host.protocol.actions.credentials import CredentialInfo
from kandev_host.protocol.actions.fields import (
    AgentName,
    Id,
    OptionValues,
    PageRequest,
    Prompt,
    Request,
    Response,
    Seq,
    Unset,
)

Preset = Literal["ask", "read-only", "contained", "unattended"]
PromptMode = Literal["queue", "interrupt"]


class AgentTypes(Request, frozen=True, kw_only=True):
    pass


class AgentTypeUpdate(Request, frozen=True, kw_only=True):
    """Absent fields stay; null gives `default_resources` or `default_options` back to the plugin. What runs, and what
    it may reach, is set by plugins and settings alone. `default_options` are an option's id or category → its value in
    every new session."""

    name: AgentName
    enabled: bool | Unset = UNSET
    default_resources: Limits | Unset | None = UNSET
    default_options: OptionValues | Unset | None = UNSET


class AgentList(PageRequest, frozen=True, kw_only=True):
    task_id: Id | None = None
    status: AgentStatus | None = None


class AgentLaunch(Request, frozen=True, kw_only=True):
    """`agent_type` defaults to the task's, `prompt` to none: the agent then waits. `preset` is of permissions."""

    task_id: Id
    agent_type: AgentName | None = None
    prompt: Prompt | None = None
    runtime: AgentName | None = None
    resources: Limits | None = None
    preset: Preset | None = None


class AgentStatusGet(Request, frozen=True, kw_only=True):
    agent_id: Id


class AgentLogs(PageRequest, frozen=True, kw_only=True):
    """`level` is the least one shown."""

    agent_id: Id
    level: LogLevel | None = None


class AgentPrompt(Request, frozen=True, kw_only=True):
    """Queued behind a running turn; `interrupt` cancels that one first."""

    agent_id: Id
    prompt: Prompt
    mode: PromptMode = "queue"


class AgentCancel(Request, frozen=True, kw_only=True):
    agent_id: Id


class AgentStop(Request, frozen=True, kw_only=True):
    """`force` kills at once; otherwise the turn is cancelled and the agent asked to end first."""

    agent_id: Id
    force: bool = False


class AgentResume(Request, frozen=True, kw_only=True):
    """Go on where a run ended, in a new one, with what waited for that one; `prompt`, if given, comes behind it."""

    agent_id: Id
    prompt: Prompt | None = None


class AgentTranscript(Request, frozen=True, kw_only=True):
    """The stored ACP updates of one agent, or of all agents of a task; exactly one of the two ids."""

    agent_id: Id | None = None
    task_id: Id | None = None
    after_seq: Seq = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class PermissionList(PageRequest, frozen=True, kw_only=True):
    agent_id: Id | None = None
    task_id: Id | None = None
    state: PermissionState | None = None


class PermissionRespond(Request, frozen=True, kw_only=True):
    """Exactly one of `option_id` (one of the request's options) and `outcome`.

    With `digest`, the answer counts only for the request that has it. `remember` makes the answer a rule, for the same
    call again in this task, or of this agent type.
    """

    permission_id: Id
    option_id: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    outcome: Literal["cancelled"] | None = None
    digest: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    remember: Literal["task", "agent_type"] | None = None


class WorkspaceDiff(Request, frozen=True, kw_only=True):
    """`from` and `to` are ids of snapshots, `base` (before the first agent began) or `now`."""

    task_id: Id
    from_: Id = msgspec.field(name="from", default="base")
    to: Id = "now"


class AvailabilityInfo(Response, frozen=True, kw_only=True):
    ok: bool
    reason: str | None = None
    fix: str | None = None


class AgentTypeInfo(Response, frozen=True, kw_only=True):
    """No environment values and no files: only what a person needs to choose."""

    name: str
    title: str | None
    description: str
    runtime: str
    image: str | None
    command: list[str]
    network: Literal["none", "allowlist", "host"]
    allow: list[str]
    hosts: list[str]
    env_required: list[str]
    credentials: list[CredentialInfo]
    capabilities: list[str]
    default_resources: Limits
    default_options: dict[str, str | bool]
    asking_modes: list[str]
    install_hint: str | None
    enabled: bool
    availability: AvailabilityInfo


class AgentTypesReply(Response, frozen=True, kw_only=True):
    agent_types: list[AgentTypeInfo]
    next_cursor: str | None = None


class AgentTypeReply(Response, frozen=True, kw_only=True):
    agent_type: AgentTypeInfo


class AgentReply(Response, frozen=True, kw_only=True):
    agent: AgentInstance


class AgentsReply(Response, frozen=True, kw_only=True):
    agents: list[AgentInstance]
    next_cursor: str | None = None


class ResourceUse(Response, frozen=True, kw_only=True):
    """Of the whole process tree; null is unknown."""

    cpu_s: float | None = None
    rss_bytes: int | None = None
    pids: int | None = None


class UsageTotals(Response, frozen=True, kw_only=True):
    """Sums over turns; null where no turn reported it. `cost` is decimal text by currency."""

    turns: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    cached_read_tokens: int | None = None
    cached_write_tokens: int | None = None
    total_tokens: int | None = None
    cost: dict[str, str]
    unpriced_turns: int


class AgentStatusReply(Response, frozen=True, kw_only=True):
    """The row under `agent`, and the fields people look for beside it."""

    agent: AgentInstance
    status: AgentStatus
    activity: Activity | None
    exit_code: int | None
    error_message: str | None
    resource_use: ResourceUse
    session: Session | None
    usage: UsageTotals


class LogsReply(Response, frozen=True, kw_only=True):
    """Oldest first."""

    logs: list[AgentLog]
    next_cursor: str | None = None


class TurnReply(Response, frozen=True, kw_only=True):
    turn_id: str


class TranscriptEntry(Response, frozen=True, kw_only=True):
    """One stored `acp.*` notification, as it was sent."""

    seq: int
    id: str
    action: str
    agent_id: str | None
    task_id: str | None
    turn_id: str | None
    timestamp: datetime
    payload: Raw


class TranscriptReply(Response, frozen=True, kw_only=True):
    """`next_after_seq` is set when more may follow."""

    updates: list[TranscriptEntry]
    next_after_seq: int | None = None


class PermissionReply(Response, frozen=True, kw_only=True):
    """`rule` is what is remembered."""

    permission: PermissionRequest
    rule: PermissionRule | None = None


class PermissionsReply(Response, frozen=True, kw_only=True):
    permissions: list[PermissionRequest]
    next_cursor: str | None = None


class FileChange(Response, frozen=True, kw_only=True):
    """`additions` and `deletions` are null for binary files."""

    path: str
    status: Literal["added", "deleted", "modified", "renamed", "copied", "type_changed"]
    additions: int | None
    deletions: int | None
    binary: bool = False
    old_path: str | None = None


class DiffReply(Response, frozen=True, kw_only=True):
    """`diff` is unified and ends at a line; `truncated` says that more was cut at the limit."""

    task_id: str
    base_branch: str | None
    base_commit: str
    branch: str
    diff: str
    truncated: bool
    files: list[FileChange]
    files_truncated: bool = False
    additions: int
    deletions: int
    from_: str = msgspec.field(name="from", default="base")
    to: str = "now"
