"""Which files of a workspace a command changed, by what the workspace was before it and after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import anyio

# A look at a big workspace takes as long as its snapshot may. A command does not wait for it so long, and the next ones
# not at all.
LOOK_S = 5.0
TOO_BIG_S = 300.0


class Changed(Protocol):
    """Paths that differ from an earlier moment, and the `moment` up to which that holds."""

    @property
    def paths(self) -> Sequence[str]: ...

    @property
    def moment(self) -> str: ...


class Snapshots(Protocol):
    """Whoever can compare a workspace with itself at an earlier moment."""

    async def changed_since(self, task_id: str, moment: str | None) -> Changed | None:
        """What changed since; with None, only the present moment. None where that is not known. Never fails."""
        ...


class Changes:
    """Without `snapshots` nobody knows."""

    def __init__(self, snapshots: Snapshots | None = None) -> None:
        self._snapshots = snapshots
        self._too_big: dict[str, float] = {}

    async def mark(self, workspace_id: str) -> str | None:
        """This moment of a workspace, to compare a later one with; None where that cannot be."""
        found = await self._look(workspace_id, None)
        return None if found is None else found.moment

    async def since(self, workspace_id: str, mark: str | None) -> list[str] | None:
        """The files that have changed since; None is unknown."""
        found = None if mark is None else await self._look(workspace_id, mark)
        return None if found is None else list(found.paths)

    async def _look(self, workspace_id: str, moment: str | None) -> Changed | None:
        if self._snapshots is None or self._is_too_big(workspace_id):
            return None
        with anyio.move_on_after(LOOK_S):
            return await self._snapshots.changed_since(workspace_id, moment)
        self._too_big[workspace_id] = time.monotonic() + TOO_BIG_S
        return None

    def _is_too_big(self, workspace_id: str) -> bool:
        now = time.monotonic()
        self._too_big = {id: until for id, until in self._too_big.items() if until > now}
        return workspace_id in self._too_big
