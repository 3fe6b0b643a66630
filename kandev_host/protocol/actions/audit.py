"""audit.list"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from kandev_host.models import AuditKind, AuditRow
from kandev_host.protocol.actions.fields import Id, PageRequest, Response

Moment = Annotated[datetime, Meta(tz=True)]


class AuditList(PageRequest, frozen=True, kw_only=True):
    """The rows that meet every filter, from `since` on and before `until`.

    `actor` is the id or the name of a principal, "host", "policy" or "unknown" (failed log-ins).
    """

    kind: AuditKind | None = None
    actor: Id | None = None
    task_id: Id | None = None
    since: Moment | None = None
    until: Moment | None = None
    oldest_first: bool = False


class AuditReply(Response, frozen=True, kw_only=True):
    """Newest first, unless the oldest were asked for. Whoever has the key can check them."""

    rows: list[AuditRow]
    next_cursor: str | None = None
