"""How an agent's process is ended: asked, then told, then made to."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import anyio
import msgspec

from kandev_host.errors import KandevError, Misconfigured
from kandev_host.interfaces import Process, ProcessSpec, Runtime
from kandev_host.models import AgentStatus, Failure
from kandev_host.secrets import known
from kandev_host.sessions.failures import cause_of
from kandev_host.sessions.session import CLOSE_S, LiveSession
from kandev_host.sessions.turns import TurnOutcome

logger = logging.getLogger(__name__)

CANCEL_S = 2.0
EOF_S = 2.0
LOCATE_S = 5.0
LOGGED_CHARS = 200


class Ending(msgspec.Struct, frozen=True):
    """What a run ends as, and why. `gently` asks before it terminates; `force` kills at once.

    `failure` says of what kind its end is: None for a run that ended well or that somebody stopped, "host_died" for
    one that ended with its host (whose status is STOPPED). `retry_at` is when the model service would work again.
    `go_on`: prompts wait that a run is to send which goes on where this one ends: a person interrupted it with one, or
    its process took no more.
    """

    status: AgentStatus
    reason: str | None
    failure: Failure | None = None
    retry_at: datetime | None = None
    gently: bool = False
    force: bool = False
    go_on: bool = False

    @property
    def keeps_prompts(self) -> bool:
        """Do prompts that wait outlive the run, for one that goes on with it? Not if somebody ended it on purpose."""
        return self.go_on or self.status == "FAILED" or self.failure == "host_died"


def logged(reason: str | None, *owners: str | None) -> str:
    """Why, for the log: its first line, as an agent's own last words follow. `owners` are the agent and its task."""
    first = (reason or "").strip().partition("\n")[0]
    return known.of(*owners).clean_text(first)[:LOGGED_CHARS] or "no reason given"


def failed(error: KandevError) -> Ending:
    """The end of a run that could not go on."""
    cause = cause_of(error)
    return Ending("FAILED", error.message, cause.failure, cause.retry_at)


def after(outcome: TurnOutcome, orchestrated: bool, spent: bool) -> Ending | None:
    """The end of a run with this turn, behind which no prompt waits; None if the agent goes on.

    `spent`: its process takes no other. A cancelled turn then stops the run; an orchestrated one has failed, or the
    queue would take it for cut short and begin it again.
    """
    if outcome.result == "cancelled" and spent:
        reason = outcome.error or "Its only turn was cancelled"
        if not orchestrated:
            return Ending("STOPPED", reason, gently=True)
        return Ending("FAILED", reason, outcome.failure or "turn", gently=True)
    if spent or (orchestrated and outcome.result in {"completed", "failed", "empty"}):
        status: AgentStatus = "COMPLETED" if outcome.ok else "FAILED"
        return Ending(status, outcome.error, outcome.failure, outcome.retry_at, gently=True)
    return None


async def end_process(
    process: Process, session: LiveSession, ending: Ending, forced: anyio.Event, kill_grace_s: float
) -> None:
    """Returns when the process is gone.

    Bounded by CANCEL_S + CLOSE_S + EOF_S + `kill_grace_s`; `forced` ends all waiting.
    """
    if ending.force:
        forced.set()
    if ending.gently and not forced.is_set():
        if await session.cancel():
            await _within(CANCEL_S, forced, session.idle)
        await _within(CLOSE_S, forced, session.close)
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


async def not_started(runtime: Runtime, spec: ProcessSpec, error: KandevError) -> Ending:
    """The end of a run that has no process: a runtime may be well again, but what is missing or wrong stays so."""
    if isinstance(error, Misconfigured):
        fix = error.details.get("fix")
        return Ending("FAILED", error.message if fix is None else f"{error.message} Fix: {fix}", "config")
    failure = cause_of(error).failure
    try:
        with anyio.move_on_after(LOCATE_S):
            if not (await runtime.locate(spec.command[0], spec.image)).ok:
                failure = "config"
    except KandevError as unknown:
        logger.debug("nor could its program be looked for: %s", unknown)
    return Ending("FAILED", error.message, failure)


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
