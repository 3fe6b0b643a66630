"""Workspaces whose files are being replaced: nothing that a shell runs may change them meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from kandev_host.errors import Conflict, KandevError
from kandev_host.services.shells.live import LiveShell

JOBS_S = 10.0


class Quiet:
    """`live` are all shells that are open."""

    def __init__(self, live: Callable[[], Sequence[LiveShell]]) -> None:
        self._live = live
        self._kept: set[str] = set()

    def check(self, workspace_id: str) -> None:
        """Before a command begins whose turn it is. Raises `Conflict` while nothing may run there."""
        if workspace_id in self._kept:
            raise Conflict("The files of this workspace are being restored: run it again then", state="restoring")

    @asynccontextmanager
    async def of(self, workspace_id: str) -> AsyncIterator[None]:
        """Within it no command begins there. Raises `Conflict` if one runs; whoever asks is alone with the workspace.

        What runs is a command, what one left in the background, and every terminal: what is done in that is not known.
        """
        self._kept.add(workspace_id)  # before the look: whoever comes later is refused, whoever came before is found
        try:
            here = [live for live in self._live() if live.row.workspace_id == workspace_id]
            busy = [live.row for live in here if await _busy(live)]
            if busy:
                what = "is a terminal" if busy[0].pty else "runs commands"
                raise Conflict(
                    f"The shell {busy[0].id} {what} in this workspace: wait for it, or close it",
                    state="shells",
                    shells=[row.id for row in busy],
                    force="restores meanwhile",
                )
            yield
        finally:
            self._kept.discard(workspace_id)


async def _busy(live: LiveShell) -> bool:
    """True also of one that does not say so in time."""
    if live.row.pty or live.waiting:
        return True
    with anyio.move_on_after(JOBS_S):
        try:
            return bool(await live.shell().jobs())
        except Conflict:
            return False  # it has ended
        except KandevError:
            return True
    return True
