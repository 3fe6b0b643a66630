"""How an agent's process is ended: asked, then told, then made to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio

from kandev_host.interfaces import Process
from kandev_host.models import AgentStatus
from kandev_host.sessions.session import LiveSession

CANCEL_S = 2.0
EOF_S = 2.0


@dataclass(frozen=True, slots=True)
class Ending:
    """What a run ends as, and why. `gently` asks before it terminates; `force` kills at once."""

    status: AgentStatus
    reason: str | None
    gently: bool = False
    force: bool = False


async def end_process(
    process: Process, session: LiveSession, ending: Ending, forced: anyio.Event, kill_grace_s: float
) -> None:
    """Returns when the process is gone. Bounded by CANCEL_S + EOF_S + `kill_grace_s`; `forced` ends all waiting."""
    if ending.force:
        forced.set()
    if ending.gently and not forced.is_set():
        if await session.cancel():
            await _within(CANCEL_S, forced, session.idle)
        with anyio.move_on_after(EOF_S):
            await process.close_stdin()
        if await _within(EOF_S, forced, process.wait):
            return
    if not forced.is_set():
        await process.terminate()
        if await _within(kill_grace_s, forced, process.wait):
            return
    session.give_up()
    await process.kill()


async def _within(seconds: float, forced: anyio.Event, what: Callable[[], Awaitable[Any]]) -> bool:
    """Did it happen in time, before somebody lost patience?"""
    happened = False

    async def watch(scope: anyio.CancelScope) -> None:
        await forced.wait()
        scope.cancel()

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            await what()
            happened = True
            tasks.cancel_scope.cancel()
    return happened
