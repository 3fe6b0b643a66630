"""search.query"""

from __future__ import annotations

import msgspec

from kandev_host.interfaces import Principal, Store
from kandev_host.models import Task
from kandev_host.protocol.actions.search import SearchHit, SearchQuery, SearchReply
from kandev_host.services.rows import need


class SearchService:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def query(self, principal: Principal, request: SearchQuery) -> SearchReply:
        """The best hits, best first. Raises `NotFound` for an unknown task."""
        del principal
        if request.task_id is not None:
            await need(self._store, Task, request.task_id)
        found = await self._store.search(
            request.text, kinds=request.kinds, task_id=request.task_id, limit=request.limit
        )
        return SearchReply(hits=[msgspec.convert(hit, SearchHit, from_attributes=True) for hit in found])
