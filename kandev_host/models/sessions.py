"""Sessions of agents: turns, permissions, usage."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from kandev_host.models.base import Row

TurnState = Literal["queued", "running", "ended", "failed", "cancelled"]
PermissionState = Literal["pending", "allowed", "rejected", "cancelled"]
ElicitationMode = Literal["form", "url"]
ElicitationState = Literal["pending", "accepted", "declined", "cancelled"]
Effect = Literal["allow", "ask", "deny"]
UsageSource = Literal["agent", "gateway"]
Opened = Literal["new", "resume", "load", "transcript"]


class Session(Row, frozen=True, kw_only=True):
    """One ACP session. `acp_session_id` is the agent's own id; the JSON fields are as the agent sent them.

    `opened` says how: anew, or as the session of an earlier run, by `session/resume` or `session/load`; "transcript" is
    a new one that is told what was said in the earlier one, since its agent cannot open that again. `auth_methods` are
    the log-ins that the agent listed, `title` is what it calls the session. With `deleted_at` nothing goes on with it
    any more.
    """

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
    auth_methods: list[dict[str, Any]] | None = None
    title: str | None = None
    opened: Opened = "new"
    closed_at: datetime | None = None
    deleted_at: datetime | None = None


class Turn(Row, frozen=True, kw_only=True):
    """One prompt and what came of it. `prompt` holds ACP content blocks; `stop_reason` is ACP's.

    `position` is its place among the queued ones of its agent, dense from 0. One that waits when its run ends may be
    moved to the run that goes on with it.
    """

    agent_id: str
    task_id: str
    session_id: str | None = None
    prompt: list[dict[str, Any]]
    state: TurnState = "queued"
    position: int = 0
    stop_reason: str | None = None
    error: str | None = None
    created_by: str
    started_at: datetime | None = None
    ended_at: datetime | None = None


class PermissionRequest(Row, frozen=True, kw_only=True):
    """ACP session/request_permission. `digest` binds the answer to what was shown: session, call, what it does (input,
    diffs, locations) and options.

    `decided_by` is a principal's id, or "policy"; `reason` says by which preset, rule or plugin, or what was chosen;
    while it is pending, why somebody is asked.
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


class PermissionRule(Row, frozen=True, kw_only=True):
    """A rule of the user: what it names must all be so; None is any. `id` is `settings:NAME` for one of the settings.

    `path` is a pattern, as seen from the workspace. `command` holds words: a rule that allows matches the whole of a
    plain command, one that asks or denies any command that begins with them.
    """

    effect: Effect
    task_id: str | None = None
    agent_type: str | None = None
    kind: str | None = None
    path: str | None = None
    command: tuple[str, ...] | None = None
    reason: str | None = None
    created_by: str


class Elicitation(Row, frozen=True, kw_only=True):
    """ACP elicitation/create: an agent wants words of a person, in a `form`, or that they open a `url`.

    What was filled in goes to the agent and is kept nowhere: `answered` holds the names of the fields. `acp_id` is the
    agent's own id of a url, and `completed_at` when it said that what was to be done there is done.
    """

    agent_id: str
    task_id: str
    turn_id: str | None = None
    session_id: str | None = None
    tool_call_id: str | None = None
    mode: ElicitationMode
    message: str
    requested_schema: dict[str, Any] | None = None
    url: str | None = None
    acp_id: str | None = None
    state: ElicitationState = "pending"
    answered: tuple[str, ...] | None = None
    decided_by: str | None = None
    reason: str | None = None
    resolved_at: datetime | None = None
    completed_at: datetime | None = None


class Usage(Row, frozen=True, kw_only=True):
    """What one turn used, from one source; None is unknown. Of several, the gateway's row counts, not the agent's.

    `input_tokens` are all that were read, those from a cache (`cached_…`) among them; `output_tokens` all that were
    written, `thought_tokens` among them. `cost` is decimal text in `currency`, and `priced_by` who said so: the agent,
    or a list of prices. `raw` holds the agent's reports as sent, by the place where they stood, and `labels` what each
    counts: per_turn, cumulative (the session so far) or context (the last model call). `unclear` beside a place: its
    counts are as sent, for no sum of them makes its total. `wall_ms` is how long the turn took, `waited_ms` for how
    much of that it waited for people.
    """

    turn_id: str
    agent_id: str
    task_id: str
    board_id: str | None = None
    agent_type: str | None = None
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
    priced_by: Literal["agent", "prices"] | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    wall_ms: int | None = None
    waited_ms: int | None = None
    raw: dict[str, Any] = msgspec.field(default_factory=dict)
