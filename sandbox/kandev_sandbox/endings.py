"""Why a jail ended, where one of its limits had a part in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kandev_sandbox.groups import Hits
from kandev_sandbox.policy import Limits

Limit = Literal["memory", "processes", "time", "disk"]
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Ending:
    """`text` completes "it ended: …"."""

    limit: Limit
    text: str


def told_by(hits: Hits, limits: Limits) -> Ending | None:
    """What the kernel counted in a jail that failed: not always the cause, but what to look at first."""
    if hits.memory and limits.memory_bytes is not None:
        times = "a process of it was" if hits.memory == 1 else f"{hits.memory} processes of it were"
        text = f"{times} killed at its memory limit of {amount(limits.memory_bytes)}"
        return Ending("memory", text)
    if hits.processes and limits.tree_processes is not None:
        times = "once" if hits.processes == 1 else f"{hits.processes} times"
        text = f"it was refused further processes {times} at its limit of {limits.tree_processes}"
        return Ending("processes", text)
    return None


def amount(size: int) -> str:
    """As people read it: "512.0 MiB"."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{size} bytes"
