"""What a jail's processes were let through to, and what not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec


class NetworkDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One connection that a process asked for. `labels` are those of its `ProcessSpec`.

    `rule` is the entry of the allowlist that let it through, `address` what was dialled. A denial says in `reason` why,
    and in `how_to_allow` what would allow it. A connection that was made is told once more when it has `ended`, with
    the bytes that went to the outside and came from there.
    """

    allowed: bool
    host: str
    port: int
    protocol: Literal["connect", "http", "socks5"]
    reason: str
    rule: str | None = None
    address: str | None = None
    how_to_allow: str | None = None
    ended: bool = False
    sent_bytes: int = 0
    received_bytes: int = 0
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
