"""What was decided about one connection that a jail asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["connect", "http", "socks5"]
_SHOWN_CHARS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`rule` is the entry of the allowlist that let it through, `address` what was dialled.

    `reason` says why not, or what became of it. A denial says in `how_to_allow` what would allow it, where anything
    would. `host` is as the jail wrote it, but printable. A connection that was made is told once more when it has
    `ended`, with the bytes that went to the outside and came from there.
    """

    allowed: bool
    host: str
    port: int
    protocol: Protocol
    reason: str
    rule: str | None = None
    address: str | None = None
    how_to_allow: str | None = None
    ended: bool = False
    sent_bytes: int = 0
    received_bytes: int = 0

    @property
    def message(self) -> str:
        """One printable line for whoever asked."""
        how = "" if self.how_to_allow is None else f"; to allow it: {self.how_to_allow}"
        return f"{self.reason}{how}"


class Refused(Exception):
    """The connection is denied."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.message)
        self.decision = decision


class Unreachable(Exception):
    """The connection is allowed, but there is none. `kind` says what is in the way."""

    def __init__(self, words: str, kind: Literal["name", "refused", "timeout", "busy", "network"]) -> None:
        super().__init__(words)
        self.kind = kind


def printable(text: str) -> str:
    """Of what a jail wrote: short, ASCII, and without control characters."""
    return ascii(text[:_SHOWN_CHARS])[1:-1]
