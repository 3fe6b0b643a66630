"""What all rows have in common, and what several of them hold."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from uuid_utils import uuid7


def new_id() -> str:
    """A new UUID of version 7, as a string."""
    return str(uuid7())


def now() -> datetime:
    """The present time, aware, in UTC. For records only: waiting is done on monotonic clocks."""
    return datetime.now(UTC)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all rows: `id` is the primary key."""

    id: str = msgspec.field(default_factory=new_id)
    created_at: datetime = msgspec.field(default_factory=now)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resource limits of one agent: "1.5" CPUs, "2g" of memory, "10g" of disk; None is the runtime's default."""

    cpu_limit: str | None = None
    memory_limit: str | None = None
    disk_limit: str | None = None
