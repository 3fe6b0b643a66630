"""orchestrator.*"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from kandev_host.models import AgentInstance, Failure, QueueState, Task, TaskState
from kandev_host.protocol.actions.agents import Preset
from kandev_host.protocol.actions.fields import AgentName, Id, PageRequest, Prompt, Reason, Request, Response


class OrchestratorStatus(Request, frozen=True, kw_only=True):
    pass


class OrchestratorQueue(PageRequest, frozen=True, kw_only=True):
    """`board_id` shows the entries of one board only; their positions are those of the whole queue."""

    board_id: Id | None = None


class OrchestratorTrigger(Request, frozen=True, kw_only=True):
    """From any state, also without `auto_start`; its attempts start anew. An agent type named here stays."""

    task_id: Id
    agent_type: AgentName | None = None
    preset: Preset | None = None


class OrchestratorStart(Request, frozen=True, kw_only=True):
    """Runs the task's agent with a prompt made of title and description, until the turn ends."""

    task_id: Id
    agent_type: AgentName | None = None
    preset: Preset | None = None


class OrchestratorStop(Request, frozen=True, kw_only=True):
    task_id: Id
    reason: Reason | None = None


class OrchestratorPrompt(Request, frozen=True, kw_only=True):
    task_id: Id
    prompt: Prompt


class OrchestratorComplete(Request, frozen=True, kw_only=True):
    task_id: Id


class OrchestratorPause(Request, frozen=True, kw_only=True):
    """From the queue, until `orchestrator.resume`, also after a restart; what runs goes on."""


class OrchestratorResume(Request, frozen=True, kw_only=True):
    pass


class Blocker(Response, frozen=True, kw_only=True):
    """An unfinished task that another one waits for; one that is FAILED or CANCELLED blocks until it is COMPLETED."""

    task_id: str
    title: str
    state: TaskState


class WaitingFor(Response, frozen=True, kw_only=True):
    """Why an entry is not started: the first reason that holds, in the order of the kinds.

    `tasks` are those not COMPLETED, `until` is the end of a backoff, `fix` says what makes the agent startable, and of
    a capacity `used` of `limit` agents of the `scope` live (of scope `task`, one that still lives for this task).
    """

    kind: Literal["task", "backoff", "agent_unavailable", "paused", "capacity"]
    reason: str
    tasks: list[Blocker] | None = None
    until: datetime | None = None
    scope: Literal["task", "host", "agent_type", "board"] | None = None
    used: int | None = None
    limit: int | None = None
    fix: str | None = None


class QueueItem(Response, frozen=True, kw_only=True):
    """One entry. `position` counts from 0 and is null for a running one; `waiting_for` null means: about to start.

    `attempt` is how many runs count so far, `host_deaths` how many since then ended because the host died, which count
    apart; `reason` and `failure` say how the last one ended.
    """

    task_id: str
    board_id: str
    title: str
    agent_type: str | None
    state: QueueState
    position: int | None
    priority: int
    attempt: int
    host_deaths: int
    not_before: datetime | None
    waiting_for: WaitingFor | None
    reason: str | None
    failure: Failure | None
    agent_id: str | None
    queued_at: datetime


class QueueReply(Response, frozen=True, kw_only=True):
    """The next one first."""

    entries: list[QueueItem]
    next_cursor: str | None = None


class CapacityInfo(Response, frozen=True, kw_only=True):
    """`used` counts every live agent but those that idle for a BLOCKED task; people may start more than `limit`."""

    limit: int
    used: int
    free: int
    limit_per_board: int | None


class TypeCounts(Response, frozen=True, kw_only=True):
    agent_type: str
    running: int
    queued: int
    limit: int | None


class OrchestratorStatusReply(Response, frozen=True, kw_only=True):
    """`running` and `queued` count tasks of the queue, `retries` those that wait after a failed run.

    A task is given `attempts` runs at most. `agent_types` are those that run, are waited for, or have a limit.
    `recovery` is what the host found and did when it started.
    """

    auto_start: bool
    paused: bool
    paused_at: datetime | None
    paused_by: str | None
    running: int
    queued: int
    retries: int
    attempts: int
    capacity: CapacityInfo
    agent_types: list[TypeCounts]
    recovery: dict[str, Any]


class TriggerReply(Response, frozen=True, kw_only=True):
    """`agent` is null, and `entry` says what it waits for, unless it could be started at once."""

    task: Task
    entry: QueueItem | None
    agent: AgentInstance | None


class RunReply(Response, frozen=True, kw_only=True):
    task: Task
    agent: AgentInstance


class StoppedReply(Response, frozen=True, kw_only=True):
    """`agent` is null when none was live."""

    task: Task
    agent: AgentInstance | None
