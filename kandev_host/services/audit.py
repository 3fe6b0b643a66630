"""audit.list: who did what."""

from __future__ import annotations

import re
from typing import Any

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Op, Principal, Store
from kandev_host.models import AuditRow
from kandev_host.protocol.actions.audit import AuditList, AuditReply

NO_PRINCIPALS = {"host", "policy", "unknown"}
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
            (_actor(request.actor), "=", request.actor),
            ("task_id", "=", request.task_id),
            ("created_at", ">=", request.since),
            ("created_at", "<", request.until),
        ]
        where = [condition for condition in filters if condition[2] is not None]
        order = ("seq",) if request.oldest_first else ("-seq",)
        page = await self._store.find(AuditRow, where, order=order, limit=request.limit, cursor=request.cursor)
        return AuditReply(rows=page.rows, next_cursor=page.next_cursor)


def _actor(text: str | None) -> str:
    """The field that it is looked for in: whoever has an id is known by name as well."""
    return "actor" if text is None or text in NO_PRINCIPALS or _ID.fullmatch(text) else "actor_name"
