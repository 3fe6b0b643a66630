"""What the orchestrator and the protocol remember: entries of the queue, receipts, states of the host."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from kandev_host.models.base import Row, now
from kandev_host.models.runs import Failure

QueueState = Literal["waiting", "running"]


class QueueEntry(Row, frozen=True, kw_only=True):
    """A task that the orchestrator runs, waiting or running; `id` is the task's id, `created_at` when it came in.

    A run holds a lease on its entry: `host_id` (this start of the host), `agent_id` and `fence`, which grows with
    every claim, and from one entry of a task to the next. Whoever claims or ends an entry expects the fence it saw, so
    that a task never runs twice.
    `attempt` is how many runs were begun, without those of which the host died or was shut down; `host_deaths` how
    many it died of since then. `not_before` is the earliest next one, `reason` why the last one failed, and
    `resume_from` the run whose session and waiting prompts the next one goes on with.
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
    resume_from: str | None = None
    created_by: str
    updated_at: datetime = msgspec.field(default_factory=now)


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
