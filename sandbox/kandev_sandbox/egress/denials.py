"""Denials for a person who watches: each kind once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from kandev_sandbox.egress.decisions import Decision

SHOWN = 100


def denials(to: TextIO) -> Callable[[Decision], None]:
    """What writes a line for each denied host and port, and for 100 of them at most."""
    told: set[tuple[str, int]] = set()

    def tell(decision: Decision) -> None:
        what = (decision.host, decision.port)
        if decision.allowed or what in told or len(told) >= SHOWN:
            return
        told.add(what)
        print(f"kandev-sandbox: {decision.message}", file=to, flush=True)

    return tell
