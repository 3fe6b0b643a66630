"""permission.list and permission.respond."""

from __future__ import annotations

from typing import Any

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Op, Principal, Store
from kandev_host.models import AgentInstance, PermissionRequest, Task
from kandev_host.protocol.actions.agents import PermissionList, PermissionReply, PermissionRespond, PermissionsReply
from kandev_host.services.rows import need
from kandev_host.sessions.permissions import PermissionBroker


class PermissionService:
    def __init__(self, store: Store, broker: PermissionBroker) -> None:
        self._store = store
        self._broker = broker

    async def list(self, principal: Principal, request: PermissionList) -> PermissionsReply:
        """Oldest first. Raises `NotFound` for an unknown agent or task."""
        del principal
        if request.agent_id is not None:
            await need(self._store, AgentInstance, request.agent_id)
        if request.task_id is not None:
            await need(self._store, Task, request.task_id)
        wanted = (("agent_id", request.agent_id), ("task_id", request.task_id), ("state", request.state))
        where: list[tuple[str, Op, Any]] = [(name, "=", value) for name, value in wanted if value is not None]
        page = await self._store.find(PermissionRequest, where, limit=request.limit, cursor=request.cursor)
        return PermissionsReply(permissions=page.rows, next_cursor=page.next_cursor)

    async def respond(self, principal: Principal, request: PermissionRespond) -> PermissionReply:
        """Answer a request. Raises `NotFound`, `Conflict` for a second answer, `ValidationFailed`."""
        if (request.option_id is None) == (request.outcome is None):
            raise ValidationFailed("option_id", "Give either option_id or outcome")
        answered = await self._broker.answer(
            request.permission_id, principal=principal, option_id=request.option_id, outcome=request.outcome
        )
        return PermissionReply(permission=answered)
