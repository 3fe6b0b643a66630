"""What went over the pipes of agents, for whoever may read it."""

from __future__ import annotations

from kandev_host.errors import NotFound
from kandev_host.interfaces import Principal, Store
from kandev_host.models import AgentInstance
from kandev_host.protocol.actions.captures import AgentCapture, CaptureReply
from kandev_host.services.rows import need
from kandev_host.sessions.capture import Captures


class CaptureService:
    def __init__(self, store: Store, captures: Captures | None) -> None:
        self._store = store
        self._captures = captures

    async def read(self, principal: Principal, request: AgentCapture) -> CaptureReply:
        """Oldest first, also of agents that have ended. Raises `NotFound` where nothing is kept."""
        del principal
        agent = await need(self._store, AgentInstance, request.agent_id)
        page = None
        if self._captures is not None:
            page = await self._captures.read(agent.id, agent.task_id, request.offset, request.limit_bytes)
        if page is None:
            fix = "Agents that start while [session] capture = true are captured; the oldest make room for new ones"
            raise NotFound("capture", agent.id, fix=fix)
        return CaptureReply(lines=page.lines, next_offset=page.next_offset, dropped_bytes=page.dropped_bytes)
