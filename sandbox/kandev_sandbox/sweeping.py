"""Ending what a dead host left behind: processes, cgroups, records."""

from __future__ import annotations

from pathlib import Path

from kandev_sandbox import cgroups, records


def sweep(owner_name: str, folder: Path | None = None) -> int:
    """End every jail of this owner whose host died, and forget it. Returns how many ran on. Blocks.

    The recorded groups as well: this host may have been started in another group than the dead one.
    """
    recorded = records.groups(owner_name, folder) if folder is not None else []
    ended = records.sweep(owner_name, folder)
    for group in recorded:
        if group.parent.name == owner_name:
            cgroups.end_leftover(group)
    cgroups.here().sweep(owner_name)
    return ended
