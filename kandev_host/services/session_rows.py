"""Which sessions there are, and having one forgotten. What an agent keeps of its own is its own: it is only asked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from kandev_host.errors import Conflict, KandevError, NotFound, ValidationFailed
from kandev_host.interfaces import Op, Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import LIVE_STATUSES, AgentInstance, Session, now
from kandev_host.protocol.actions.session_list import (
    AgentSessionDelete,
    AgentSessionDeleted,
    AgentSessions,
    AgentSessionsReply,
    Resumable,
    SessionEntry,
)
from kandev_host.services.locks import Locks
from kandev_host.services.rows import every, need
from kandev_host.services.supervision import LiveAgent, Supervisor
from kandev_host.sessions.listing import TEXT_CHARS, ListedSession, offers, read_list
from kandev_host.sessions.opening import ways_to_resume

Where = list[tuple[str, Op, Any]]
ASK_S = 10.0
OWN = "agent:"
"""How the cursor of a page of the agent's own begins; the place in its page and its own cursor follow."""


class SessionRows:
    def __init__(self, store: Store, journal: Journal, supervisor: Supervisor, locks: Locks) -> None:
        self._store = store
        self._journal = journal
        self._supervisor = supervisor
        self._locks = locks

    # --- which there are ----------------------------------------------------------------------------------------------

    async def list(self, principal: Principal, request: AgentSessions) -> AgentSessionsReply:
        """Newest first. Raises `ValidationFailed` for both an agent and a type, `NotFound`."""
        del principal
        if request.agent_id is not None and request.agent_type is not None:
            raise ValidationFailed("agent_type", "Give either agent_id or agent_type")
        agent = None if request.agent_id is None else await need(self._store, AgentInstance, request.agent_id)
        if agent is not None and request.cursor is not None and request.cursor.startswith(OWN):
            return await self._own(agent, request.limit, request.cursor)
        rows, cursor = await self._rows(request)
        reply = AgentSessionsReply(sessions=[self._entry(row) for row in rows], next_cursor=cursor)
        if agent is None or cursor is not None or len(rows) >= request.limit:
            return reply
        own = await self._own(agent, request.limit - len(rows), f"{OWN}0:")
        return replace(own, sessions=[*reply.sessions, *own.sessions])

    async def _rows(self, request: AgentSessions) -> tuple[Sequence[Session], str | None]:
        where: Where = []
        newest = ("-created_at", "-id")
        paging: dict[str, Any] = {"order": newest, "limit": request.limit, "cursor": request.cursor}
        if request.agent_type is not None:  # a page of its runs, with the sessions that these had
            runs = await self._store.find(AgentInstance, [("agent_type", "=", request.agent_type)], **paging)
            ids = [run.id for run in runs.rows]
            where = [("agent_id", "in", ids)]
            return (await self._store.find(Session, where, order=newest, limit=500)).rows, runs.next_cursor
        if request.agent_id is not None:
            where.append(("agent_id", "=", request.agent_id))
        page = await self._store.find(Session, where, **paging)
        return page.rows, page.next_cursor

    def _entry(self, row: Session) -> SessionEntry:
        run = self._supervisor.live(row.agent_id)
        live = run is not None and run.session is not None and run.session.id == row.id
        row = run.session if live and run is not None and run.session is not None else row
        return SessionEntry(
            session_id=row.id,
            acp_session_id=row.acp_session_id,
            agent_id=row.agent_id,
            task_id=row.task_id,
            title=row.title,
            cwd=row.cwd,
            opened=row.opened,
            created_at=row.created_at,
            updated_at=row.closed_at,
            live=live,
            resumable=None if live or row.deleted_at is not None else _how(row),
            deleted_at=row.deleted_at,
        )

    async def _own(self, agent: AgentInstance, limit: int, cursor: str) -> AgentSessionsReply:
        """What the agent tells of, beside the session that it has open."""
        run = self._supervisor.live(agent.id)
        session = None if run is None else run.session
        if run is None or session is None or not offers(session.agent_capabilities, "list"):
            return AgentSessionsReply(sessions=[])
        place, _, theirs = cursor.removeprefix(OWN).partition(":")
        if not place.isdecimal() or len(place) > 9:
            raise ValidationFailed("cursor", "This is no cursor of this list")
        try:
            found = read_list(await run.ask("session/list", {"cursor": theirs} if theirs else {}, ASK_S))
        except KandevError as error:
            return AgentSessionsReply(sessions=[], not_listed=error.message)
        others = [item for item in found.sessions if item.session_id != session.acp_session_id]
        start, known = int(place), await self._known(agent.task_id)
        shown = [_listed(item, agent, known.get(item.session_id)) for item in others[start : start + limit]]
        following = None if not found.next_cursor else f"{OWN}0:{found.next_cursor}"
        if start + limit < len(others):
            following = f"{OWN}{start + limit}:{theirs}"
        return AgentSessionsReply(sessions=shown, next_cursor=following)

    async def _known(self, task_id: str) -> dict[str, Session]:
        """The newest row of each session of a task, by the agent's name of it."""
        return {row.acp_session_id: row async for row in every(self._store, Session, [("task_id", "=", task_id)])}

    # --- having one forgotten -----------------------------------------------------------------------------------------

    async def delete(self, principal: Principal, request: AgentSessionDelete) -> AgentSessionDeleted:
        """Nothing goes on with it any more; an agent that lives in its workspace and can delete it is asked to.

        Raises `Conflict` while it is open, or if `agent_id` does not live, `NotFound`, and `AgentError` if the agent
        refuses: then nothing has changed.
        """
        del principal
        task_id, acp_session_id = await self._meant(request)
        async with self._locks.hold(f"task:{task_id}"):  # else a run could begin to go on with it meanwhile
            rows = [
                row
                async for row in every(self._store, Session, [("task_id", "=", task_id)])
                if row.acp_session_id == acp_session_id
            ]
            run = await self._closed(task_id, acp_session_id, rows)
            asked = run is not None and (not rows or any(row.deleted_at is None for row in rows))
            if not rows and not asked:
                raise NotFound("session", acp_session_id)
            if asked and run is not None:
                await run.ask("session/delete", {"sessionId": acp_session_id}, ASK_S)
            at = now()
            deleted = [row if row.deleted_at is not None else replace(row, deleted_at=at) for row in rows]
            await self._journal.record(*(Put(row) for row, old in zip(deleted, rows, strict=True) if row is not old))
        return AgentSessionDeleted(session=deleted[-1] if deleted else None, deleted_by_agent=asked)

    async def _meant(self, request: AgentSessionDelete) -> tuple[str, str]:
        """Its task, and the agent's name of it."""
        if request.agent_id is None:
            row = await need(self._store, Session, request.session_id)
            return row.task_id, row.acp_session_id
        agent = await need(self._store, AgentInstance, request.agent_id)
        if self._supervisor.live(agent.id) is None:
            raise Conflict("The agent does not run any more; name the session by the host's id", state=agent.status)
        held = await self._store.get(Session, request.session_id)
        return agent.task_id, request.session_id if held is None else held.acp_session_id

    async def _closed(self, task_id: str, acp_session_id: str, rows: Sequence[Session]) -> LiveAgent | None:
        """The live agent that can be asked to delete it, if there is one. Raises `Conflict` if one has it open."""
        types = {(await need(self._store, AgentInstance, row.agent_id)).agent_type for row in rows}
        found = None
        where: Where = [("task_id", "=", task_id), ("status", "in", LIVE_STATUSES)]
        for agent in [agent async for agent in every(self._store, AgentInstance, where)]:
            run = self._supervisor.live(agent.id)
            session = None if run is None else run.session
            if session is None:
                raise Conflict("An agent of its task is starting; ask again when it runs", state="starting")
            if session.acp_session_id == acp_session_id:
                raise Conflict("The session is open: stop its agent first", state="open", agent_id=agent.id)
            if offers(session.agent_capabilities, "delete") and (not rows or agent.agent_type in types):
                found = run
        return found


def _how(row: Session) -> Resumable:
    ways = ways_to_resume(row.agent_capabilities)
    return ways[0] if ways else "transcript"


def _listed(item: ListedSession, agent: AgentInstance, row: Session | None) -> SessionEntry:
    return SessionEntry(
        session_id=None if row is None else row.id,
        acp_session_id=item.session_id,
        agent_id=agent.id if row is None else row.agent_id,
        task_id=agent.task_id,
        title=None if item.title is None else item.title[:TEXT_CHARS],
        cwd=None if item.cwd is None else item.cwd[:TEXT_CHARS],
        opened=None if row is None else row.opened,
        created_at=None if row is None else row.created_at,
        updated_at=_time(item.updated_at),
        live=False,
        resumable=None if row is None or row.deleted_at is not None else _how(row),
        deleted_at=None if row is None else row.deleted_at,
    )


def _time(text: str | None) -> datetime | None:
    """ISO 8601; None for what is none."""
    try:
        found = None if text is None else datetime.fromisoformat(text[:64])
    except ValueError:
        return None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)
