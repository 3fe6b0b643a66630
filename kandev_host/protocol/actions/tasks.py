"""task.* and the subscriptions."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, field

from kandev_host.models import Task, TaskEvent
from kandev_host.protocol.actions.fields import (
    AgentName,
    AllowList,
    Branch,
    Description,
    Id,
    Metadata,
    PageRequest,
    Position,
    Priority,
    Reason,
    RepositoryUrl,
    Request,
    Response,
    Seq,
    SettingNames,
    TaskState,
    Title,
    Topic,
    Unset,
    Version,
)

BlockedBy = Annotated[list[Id], Meta(max_length=100)]


class TaskList(PageRequest, frozen=True, kw_only=True):
    """`query` is full text over title and description; any text is valid."""

    board_id: Id | None = None
    column_id: Id | None = None
    state: TaskState | None = None
    agent_type: AgentName | None = None
    query: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    priority_min: Priority | None = None


class TaskCreate(Request, frozen=True, kw_only=True):
    """`repository_url` is a local path or a git URL; the agents work on a clone of their own.

    An agent type that is not there is NOT_FOUND, with the `known` ones; a local repository, VALIDATION_ERROR.
    `mcp_servers`, `directories` and `credentials` are names of the settings, which agents of this task have beside
    their own. `allow` is what they may reach beside what theirs may; that and credentials only a user may name.
    """

    board_id: Id
    title: Title
    description: Description
    priority: Priority = 0
    column_id: Id | None = None
    agent_type: AgentName | None = None
    repository_url: RepositoryUrl | None = None
    branch: Branch | None = None
    blocked_by: BlockedBy = field(default_factory=list)
    mcp_servers: SettingNames = field(default_factory=list)
    directories: SettingNames = field(default_factory=list)
    credentials: SettingNames = field(default_factory=list)
    allow: AllowList = field(default_factory=list)
    metadata: Metadata = field(default_factory=dict)


class TaskGet(Request, frozen=True, kw_only=True):
    task_id: Id


class TaskUpdate(Request, frozen=True, kw_only=True):
    """Absent fields stay; null clears those that may be empty. Lists and `metadata` are replaced whole."""

    task_id: Id
    title: Title | Unset = UNSET
    description: Description | Unset = UNSET
    priority: Priority | Unset = UNSET
    agent_type: AgentName | Unset | None = UNSET
    repository_url: RepositoryUrl | Unset | None = UNSET
    branch: Branch | Unset | None = UNSET
    blocked_by: BlockedBy | Unset = UNSET
    mcp_servers: SettingNames | Unset = UNSET
    directories: SettingNames | Unset = UNSET
    credentials: SettingNames | Unset = UNSET
    allow: AllowList | Unset = UNSET
    metadata: Metadata | Unset = UNSET
    expected_version: Version | None = None


class TaskDelete(Request, frozen=True, kw_only=True):
    """Refused with a live agent, or with work in its workspace that is nowhere else, unless `force`.

    That stops the agent first, and throws the work away.
    """

    task_id: Id
    force: bool = False
    expected_version: Version | None = None


class TaskStateChange(Request, frozen=True, kw_only=True):
    task_id: Id
    state: TaskState
    reason: Reason | None = None
    expected_version: Version | None = None


class TaskMove(Request, frozen=True, kw_only=True):
    """A position beyond the end means the end. A column that stands for a state changes the state."""

    task_id: Id
    column_id: Id
    position: Position
    expected_version: Version | None = None


class TaskEvents(PageRequest, frozen=True, kw_only=True):
    task_id: Id


class TaskSubscribe(Request, frozen=True, kw_only=True):
    """With `after_seq`, the stored events after it come first; `journal_id` is the one the client knows."""

    task_id: Id
    after_seq: Seq | None = None
    journal_id: Id | None = None


class TaskUnsubscribe(Request, frozen=True, kw_only=True):
    task_id: Id


class EventsSubscribe(Request, frozen=True, kw_only=True):
    """Topics are `task:<id>`, `board:<id>`, `agent:<id>`, `shell:<id>` and `*`."""

    topics: Annotated[list[Topic], Meta(min_length=1, max_length=100)] = field(default_factory=lambda: ["*"])
    after_seq: Seq | None = None
    journal_id: Id | None = None


class EventsUnsubscribe(Request, frozen=True, kw_only=True):
    """Without `topics`, all of them."""

    topics: Annotated[list[Topic], Meta(min_length=1, max_length=100)] | None = None


class TaskReply(Response, frozen=True, kw_only=True):
    task: Task


class TasksReply(Response, frozen=True, kw_only=True):
    tasks: list[Task]
    next_cursor: str | None = None


class TaskRemoved(Response, frozen=True, kw_only=True):
    """What went with a task: `agents` are those that ran for it at any time, `stopped` those still running.

    `workspace` says whether there was one and it is gone. What could not be removed is tried again by the next start
    of the host; `workspace_left` says why it is still there, and what to do.
    """

    agents: int
    stopped: int
    workspace: bool
    workspace_left: str | None = None


class TaskDeleted(Response, frozen=True, kw_only=True):
    task_id: str
    deleted: bool = True
    removed: TaskRemoved


class TaskEventsReply(Response, frozen=True, kw_only=True):
    """Who changed what and when: one line for each version of the task."""

    events: list[TaskEvent]
    next_cursor: str | None = None


class Subscribed(Response, frozen=True, kw_only=True):
    """`seq` is the head at the moment of subscribing: what comes later is delivered."""

    journal_id: str
    seq: int
    topics: list[str]


class Unsubscribed(Response, frozen=True, kw_only=True):
    topics: list[str]
