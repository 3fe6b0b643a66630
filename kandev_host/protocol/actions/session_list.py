"""agent.sessions and agent.session_delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from kandev_host.models import Opened, Session
from kandev_host.protocol.actions.fields import AgentName, Id, PageRequest, Request, Response

Resumable = Literal["resume", "load", "transcript"]


class AgentSessions(PageRequest, frozen=True, kw_only=True):
    """Of one agent, or of all of a type, or of all. A live `agent_id` that can list is asked for its own as well."""

    agent_id: Id | None = None
    agent_type: AgentName | None = None


class AgentSessionDelete(Request, frozen=True, kw_only=True):
    """With `agent_id`, which must live, `session_id` may also be the agent's own name of one."""

    session_id: Annotated[str, Meta(min_length=1, max_length=1024)]
    agent_id: Id | None = None


class SessionEntry(Response, frozen=True, kw_only=True):
    """`session_id` is null for one that only the agent knows of. `resumable` says how `agent.resume` would go on with
    it, by what its agent offered; null: it is open, deleted, or not the host's."""

    session_id: str | None
    acp_session_id: str
    agent_id: str
    task_id: str
    title: str | None
    cwd: str | None
    opened: Opened | None
    created_at: datetime | None
    updated_at: datetime | None
    live: bool
    resumable: Resumable | None
    deleted_at: datetime | None


class AgentSessionsReply(Response, frozen=True, kw_only=True):
    """Newest first, the agent's own last. `not_listed` says why a live agent that offers its list did not give it."""

    sessions: list[SessionEntry]
    next_cursor: str | None = None
    not_listed: str | None = None


class AgentSessionDeleted(Response, frozen=True, kw_only=True):
    """`session` is the newest row of it, null for one that only the agent knew of."""

    session: Session | None
    deleted_by_agent: bool
