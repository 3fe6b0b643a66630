"""What `kandev-host doctor` looks at: each look by itself, within a deadline, and none that fails fails another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

LOOK_TIMEOUT_S = 10.0

State = Literal["ok", "warning", "failed"]


class Check(msgspec.Struct, frozen=True):
    """One thing looked at: what was found, why it matters, what to do.

    `failed` means that the host is of no use, or not safe.
    """

    name: str
    state: State
    found: str
    fix: str | None = None
    why: str | None = None


Look = Callable[[], Iterable[Check]]


def looked(looks: Mapping[str, Look], timeout_s: float = LOOK_TIMEOUT_S) -> list[Check]:
    """All looks at the same time, told in their order. One that raises or hangs is told as such."""
    found: dict[str, list[Check]] = {}

    def run(name: str, look: Look) -> None:
        try:
            found[name] = list(look())
        except Exception as error:  # the doctor says what is wrong; it is never the one that fails
            told = " ".join(str(error).split()) or type(error).__name__
            found[name] = [Check(name, "warning", f"cannot be looked at: {told}", "kandev-host doctor --debug")]

    # Daemons: one that hangs, as on a share that is gone, does not keep the command.
    threads = [threading.Thread(target=run, args=each, name=each[0], daemon=True) for each in looks.items()]
    for thread in threads:
        thread.start()
    ends_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, ends_s - time.monotonic()))
    late = f"did not answer within {timeout_s:g} s"
    return [
        check
        for name in looks
        for check in found.get(name, [Check(name, "warning", late, "look at its disk or network, and try again")])
    ]
