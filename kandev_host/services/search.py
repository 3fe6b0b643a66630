"""search.query"""

from __future__ import annotations

import msgspec

from kandev_host.errors import Forbidden
from kandev_host.interfaces import Principal, Store
from kandev_host.models import Task
from kandev_host.protocol.actions.search import SearchHit, SearchKind, SearchQuery, SearchReply
from kandev_host.services.rows import need

SCOPES: dict[SearchKind, str] = {
    "task": "tasks:read", "message": "agents:read", "log": "agents:read", "command": "shell:read",
}  # fmt: skip


class SearchService:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def query(self, principal: Principal, request: SearchQuery) -> SearchReply:
        """The best hits, best first, of the kinds that the principal may read.

        Raises `NotFound` for an unknown task, `Forbidden` for a kind that is asked for and may not be read.
        """
        kinds = request.kinds or [kind for kind, scope in SCOPES.items() if principal.may(scope)]
        for kind in kinds or SCOPES:
            if not principal.may(SCOPES[kind]):
                raise Forbidden(SCOPES[kind])
        if request.task_id is not None:
            await need(self._store, Task, request.task_id)
        found = await self._store.search(request.text, kinds=kinds, task_id=request.task_id, limit=request.limit)
        return SearchReply(hits=[msgspec.convert(hit, SearchHit, from_attributes=True) for hit in found])
