"""What requests leave in the audit, besides what their changes do (`audit.audited`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from kandev_host.audit.acting import ACTING, Acting, is_audited, row_of
from kandev_host.audit.log import Audit, NoAudit
from kandev_host.errors import Forbidden, KandevError, Unauthorized
from kandev_host.interfaces import Principal

Refused = Callable[[Principal, str, str, KandevError], None]


def _nothing(_principal: Principal, _address: str, _action: str, _error: KandevError) -> None:
    """For whoever keeps no audit."""


class Auditing:
    """Every action that changes something leaves a row, by one rule, so that nothing has to be remembered.

    It goes with the first commit of the request, unless that is audited for what it is; when nothing is committed, it
    is written before the answer. `refused` is told of everybody who asks for what is not theirs.
    """

    def __init__(self, audit: Audit | None = None, refused: Refused = _nothing) -> None:
        self._audit = audit or NoAudit()
        self._refused = refused

    async def carried_out(
        self, action: str, request: Any, principal: Principal, address: str, work: Callable[[], Any | Awaitable[Any]]
    ) -> Any:
        """What the `work` of a request answers. Within this task, what it commits is that of `principal`."""
        acting = Acting(principal, address, row_of(action, request) if is_audited(action, request) else None)
        token = ACTING.set(acting)
        try:
            answer = work()
            if isawaitable(answer):
                answer = await answer
            owed, acting.owed = acting.owed, None
            if owed is not None:
                await self._audit.write(owed)
            return answer
        finally:
            acting.owed = None
            ACTING.reset(token)

    def refused(self, error: Exception, action: str, principal: Principal, address: str) -> None:
        """Being refused something is noted, as is a wrong password that somebody who is in gives."""
        if isinstance(error, Forbidden | Unauthorized):
            self._refused(principal, address, action, error)
