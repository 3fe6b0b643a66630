"""The audit: rows that are only added, each sealed over the one before it (docs/audit.md)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Literal, get_args

import msgspec

from kandev_host.models.base import Row

AuditKind = Literal[
    "auth", "access", "policy", "approval", "credential", "launch", "deletion", "settings", "backup", "host", "audit",
    "action",
]  # fmt: skip
AUDIT_KINDS: tuple[AuditKind, ...] = get_args(AuditKind)
_canonical = msgspec.json.Encoder(order="sorted").encode


class AuditRow(Row, frozen=True, kw_only=True):
    """One thing that somebody did, or was refused: `action` of a `kind` (AUDIT_KINDS), with its `outcome`.

    `actor` is a principal's id, "host" or "policy"; the other fields of the actor are known of requests. `details` are
    small and hold no secrets. The store numbers the rows from 1 without gaps (`seq`); `prev` is the `mac` of the row
    before, and `mac` that of this one, by the key that `key_id` names.
    """

    kind: str
    action: str
    outcome: str = "ok"
    actor: str = "host"
    actor_kind: str | None = None
    actor_name: str | None = None
    address: str | None = None
    board_id: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    details: dict[str, Any] = msgspec.field(default_factory=dict)
    seq: int = 0
    key_id: str = ""
    prev: str = ""
    mac: str = ""


def key_id_of(key: bytes) -> str:
    """What tells one key from another, and nothing about it."""
    return hmac.new(key, b"kandev-host audit key", hashlib.sha256).hexdigest()[:16]


def mac_of(row: AuditRow, key: bytes) -> str:
    """HMAC-SHA256 over the row as JSON, its keys sorted, `mac` empty; `prev` and `seq` are part of that."""
    return hmac.new(key, _canonical(msgspec.structs.replace(row, mac="")), hashlib.sha256).hexdigest()


def chained(row: AuditRow, key: bytes, *, seq: int, mac: str) -> AuditRow:
    """The row behind the one with this `seq` and `mac`; behind none they are 0 and ""."""
    numbered = msgspec.structs.replace(row, seq=seq + 1, key_id=key_id_of(key), prev=mac, mac="")
    return msgspec.structs.replace(numbered, mac=mac_of(numbered, key))
