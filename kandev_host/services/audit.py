"""audit.list: who did what."""

from __future__ import annotations

from typing import Any

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Op, Principal, Store
from kandev_host.models import AuditRow
from kandev_host.protocol.actions.audit import AuditList, AuditReply


class AuditService:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, principal: Principal, request: AuditList) -> AuditReply:
        """Newest first, unless the oldest are asked for. Raises `ValidationFailed` for a time that ends too early."""
        del principal
        if request.since is not None and request.until is not None and request.until <= request.since:
            raise ValidationFailed("until", "until must be later than since")
        filters: list[tuple[str, Op, Any]] = [
            ("kind", "=", request.kind),
            ("actor", "=", request.actor),
            ("task_id", "=", request.task_id),
            ("created_at", ">=", request.since),
            ("created_at", "<", request.until),
        ]
        where = [condition for condition in filters if condition[2] is not None]
        order = ("seq",) if request.oldest_first else ("-seq",)
        page = await self._store.find(AuditRow, where, order=order, limit=request.limit, cursor=request.cursor)
        return AuditReply(rows=page.rows, next_cursor=page.next_cursor)
