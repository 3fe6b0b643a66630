"""Log-ins and requests that were refused, as lines of the log: as many as the audit has rows of them."""

from __future__ import annotations

import logging

from kandev_host.models import AuditRow

logger = logging.getLogger(__name__)


def log_refusal(row: AuditRow) -> None:
    """One line, or none if it tells of something that went well."""
    told = _told(row)
    if told is None:
        return
    more = f", {row.details['count']} times more" if "count" in row.details else ""
    logger.info("%s from %s%s", told, row.address or "here", more)


def _told(row: AuditRow) -> str | None:
    user = row.details.get("user")
    if row.outcome == "reused":
        return f"A refresh token of {user} was used again: its log-in is ended. It came"
    if row.kind == "auth" and row.outcome == "failed":
        return f"Log-in of {user} refused" if user else "Log-in refused"
    if row.kind == "access":
        return f"{row.details.get('action')} refused to {row.actor_name or row.actor} ({row.outcome})"
    return None
