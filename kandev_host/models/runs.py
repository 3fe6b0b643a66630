"""Agents: their types, their runs, their logs, their folders."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from kandev_host.models.base import Limits, Row, now

AgentStatus = Literal["PENDING", "STARTING", "RUNNING", "COMPLETED", "FAILED", "STOPPED"]
Activity = Literal[
    "starting", "idle", "prompting", "waiting_permission", "waiting_elicitation", "needs_login", "stopping"
]
LogLevel = Literal["debug", "info", "warning", "error"]
# Why a run failed; what is worth another attempt is decided in `services.orchestration.retry`.
Failure = Literal[
    "crash",  # the agent's process ended by itself, or broke the protocol
    "unavailable",  # the runtime, the workspace or the model service could not be used just now
    "rate_limit",  # the model service said: later
    "stalled",  # silent for too long
    "host_died",  # the host was killed while it ran
    "config",  # the agent, its model or the repository is set up wrongly
    "login",  # the agent wants a log-in first
    "turn",  # the agent said that its turn failed, and nothing says that another attempt would do better
]
LIVE_STATUSES: tuple[AgentStatus, ...] = ("PENDING", "STARTING", "RUNNING")


class UsageReading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an agent counts (ACP leaves it open; docs/usage.md).

    `tokens` of its answer to a prompt are those of the turn, of the session so far, or of the last model call alone.
    `cost_after_resume`: the session's cost goes on, or starts again at nothing; None is unknown.
    """

    tokens: Literal["per_turn", "cumulative", "last_call"] = "per_turn"
    cost_after_resume: Literal["continues", "restarts"] | None = None


class AgentInstance(Row, frozen=True, kw_only=True):
    """One run of an agent for a task. `orchestrated` runs end with their turn; others wait for the next prompt.

    `preset` is what it may do without asking, as it began, and `preset_expires_at` when that becomes `ask`.
    `attempt` says which attempt at its task it is, of an orchestrated run; `failure` of what kind its end was, and
    `stalled_at` since when it has said nothing (None while it talks). `resumed_from` is the run with whose session it
    goes on. `network` is what its jail has: none, allowlist or host.
    `process_ref` is what the runtime needs to find the process again (opaque); `container_id`,
    `container_name` and `image_name` are set once it runs, by container runtimes only.
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
    resumed_from: str | None = None
    preset: str | None = None
    preset_expires_at: datetime | None = None
    network: str | None = None
    stalled_at: datetime | None = None
    updated_at: datetime = msgspec.field(default_factory=now)


class AgentLog(Row, frozen=True, kw_only=True):
    """One line an agent wrote to stderr, or that the host noted about it."""

    agent_instance_id: str
    log_level: LogLevel = "info"
    message: str
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """How a workspace was made ready: by which table `[repositories.NAME]`, the files that were copied into it, and the
    end of what its script wrote."""

    name: str
    copied: tuple[str, ...] = ()
    output: str = ""
    duration_ms: int


class Workspace(Row, frozen=True, kw_only=True):
    """The place a task's agents work in; `id` is the task's id. `base_commit` is what `workspace.diff` starts from.

    With `removing_at` its files are being deleted, or were when the host died: nothing in it is of use any more.
    """

    runtime: str
    repository_url: str | None = None
    branch: str | None = None
    base_branch: str | None = None
    base_commit: str | None = None
    removing_at: datetime | None = None
    setup: Setup | None = None


class AgentTypeRow(Row, frozen=True, kw_only=True):
    """What users changed about an agent type (`name` is unique); the type itself comes from a plugin.

    `default_resources` None are those of plugin and settings. `enabled` does not enable what the settings disable.
    `default_options` go over those of plugin and settings: a config option's id or category → its value.
    """

    name: str
    description: str | None = None
    docker_image: str | None = None
    docker_tag: str | None = None
    default_resources: Limits | None = None
    environment_vars: dict[str, str] = msgspec.field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    enabled: bool = True
    default_options: dict[str, str | bool] = msgspec.field(default_factory=dict)
    updated_at: datetime = msgspec.field(default_factory=now)
