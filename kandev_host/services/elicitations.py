"""elicitation.*: what agents want to know of a person, and the answers."""

from __future__ import annotations

from kandev_host.interfaces import Principal, Store
from kandev_host.models import Elicitation
from kandev_host.protocol.actions.elicitations import (
    ElicitationList,
    ElicitationReply,
    ElicitationRespond,
    ElicitationsReply,
)
from kandev_host.services.rows import asked_for
from kandev_host.sessions.elicitations import ElicitationBroker


class ElicitationService:
    def __init__(self, store: Store, broker: ElicitationBroker) -> None:
        self._store = store
        self._broker = broker

    async def list(self, principal: Principal, request: ElicitationList) -> ElicitationsReply:
        """Oldest first. Raises `NotFound` for an unknown agent or task."""
        del principal
        page = await asked_for(self._store, Elicitation, request)
        return ElicitationsReply(elicitations=page.rows, next_cursor=page.next_cursor)

    async def respond(self, principal: Principal, request: ElicitationRespond) -> ElicitationReply:
        """Answer one. Raises as `ElicitationBroker.answer`."""
        answered = await self._broker.answer(
            request.elicitation_id, principal=principal, outcome=request.outcome, content=request.content
        )
        return ElicitationReply(elicitation=answered)
