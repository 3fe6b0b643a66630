"""One turn after the other: whether it may start, what watches it, how it is cut short, what is made of its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import anyio
import msgspec
from msgspec.structs import replace

from kandev_host.errors import KandevError
from kandev_host.interfaces import Change
from kandev_host.models import Activity, Failure, Task, Turn, now
from kandev_host.sessions.crew import Crew
from kandev_host.sessions.ending import Ending, after, logged
from kandev_host.sessions.peer import Peer
from kandev_host.sessions.prompts import PromptQueue
from kandev_host.sessions.record import RunRecord
from kandev_host.sessions.session import LiveSession
from kandev_host.sessions.stalls import StallWatch
from kandev_host.sessions.turns import TurnOutcome, outcome_told

logger = logging.getLogger(__name__)


class Life(Protocol):
    """What a turn needs of the run that it is part of."""

    @property
    def ends_as(self) -> Ending | None:
        """How it is to end, once somebody has said so."""
        ...

    def end(self, ending: Ending) -> None: ...

    def wake(self) -> None:
        """Let everything that waits in `woken` look again."""
        ...

    async def woken(self) -> None: ...

    async def end_process(self) -> None: ...

    async def with_stderr(self, message: str) -> str: ...


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """Where turns happen."""

    crew: Crew
    task: Task
    record: RunRecord
    session: LiveSession
    queue: PromptQueue


class Turning:
    """Takes prompts from the queue, one at a time. `settled` says until when late updates are waited for, monotonic."""

    def __init__(self, floor: Floor, life: Life) -> None:
        self._crew = floor.crew
        self._task = floor.task
        self._record = floor.record
        self._session = floor.session
        self._queue = floor.queue
        self._life = life
        self._cancel_deadline: float | None = None
        self._stalled: str | None = None  # why the turn was cancelled, if silence was the reason
        self._interrupting: str | None = None  # the prompt for which the turn was cancelled
        self._beginning: anyio.Event | None = None  # while a turn is on its way to the agent; set: cancelled
        self._settled = 0.0

    @property
    def rest_s(self) -> float:
        """How long late updates of the turn before may still come."""
        return self._settled - anyio.current_time()

    @property
    def interrupted(self) -> bool:
        """Does the prompt still wait for which a person cancelled the turn?"""
        waiting = self._queue.waiting
        return bool(waiting) and waiting[0].id == self._interrupting

    async def interrupt(self, turn: Turn) -> None:
        """Cancel what runs in favour of this prompt, which is first in the queue or has begun by now."""
        running = self._record.turn
        if running is not None and running.id != turn.id:
            self._interrupting = turn.id
            await self.cancel()

    async def cancel(self) -> bool:
        """Cancel the running turn; False if none runs. A turn that does not end in time costs the agent its life."""
        if self._beginning is not None:
            self._beginning.set()
            return True
        asked = await self._session.cancel()
        if asked and self._cancel_deadline is None:
            self._cancel_deadline = anyio.current_time() + self._crew.settings.cancel_grace_s
            self._life.wake()
        return asked

    async def next(self, peer: Peer) -> None:
        """Run the turn of the first prompt that waits, from its beginning to its recorded end."""
        self._cancel_deadline = self._interrupting = None
        self._beginning = beginning = anyio.Event()
        try:
            taken = await self._queue.take(self._begin)
        finally:
            self._beginning = None
        if taken is None:
            return
        turn, denied = taken
        if denied is not None:
            await self._follow(turn, denied)
        elif beginning.is_set():
            await self._end(turn, TurnOutcome(result="cancelled", asked_to_cancel=True))
        else:
            await self._run(turn, peer)

    async def go_on(self, turn: Turn, peer: Peer) -> None:
        """With a turn that a host began which died."""
        await self._run(turn, peer)

    async def follow(self, ended: Turn) -> None:
        """What follows from a turn whose end the host that died had recorded: doing it twice changes nothing."""
        await self._follow(ended, outcome_told(ended))

    async def _begin(self, waiting: Turn, changes: Sequence[Change]) -> tuple[Turn, TurnOutcome | None]:
        """The turn, and its end if it may not start; either is recorded."""
        row = self._session.row
        session_id = None if row is None else row.id
        turn = msgspec.structs.replace(waiting, state="running", started_at=now(), session_id=session_id, position=0)
        reason = await self._crew.denied(turn, self._task)
        if reason is None:
            await self._record.begin_turn(turn, *changes, *self._session.prompting(turn))
            return turn, None
        outcome = TurnOutcome(result="failed", error=reason, failure="turn")
        return await self._write_end(turn, outcome, *changes), outcome

    async def _run(self, turn: Turn, peer: Peer) -> None:
        with self._session.spans(turn, self._queue.origin(turn.id)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch)
                tasks.start_soon(self._stall_watch(peer).run)
                outcome = await self._session.prompt(turn)
                tasks.cancel_scope.cancel()
            self._cancel_deadline = None
            self._settled = anyio.current_time() + self._crew.settings.settle_s
            outcome = await self._judged(outcome, peer)
            usage, changes = await self._session.close_turn(turn, outcome)
            outcome = replace(outcome, usage=usage)
            ended = await self._write_end(turn, outcome, *changes)
        await self._follow(ended, outcome)

    async def _judged(self, outcome: TurnOutcome, peer: Peer) -> TurnOutcome:
        """The outcome with the host's own part in it: it may have cut the turn short."""
        ending = self._life.ends_as
        if outcome.result == "cancelled" and self._stalled is not None:
            return replace(outcome, asked_to_cancel=False, error=self._stalled, failure="stalled")
        if outcome.result == "failed" and ending is not None:
            return replace(outcome, error=ending.reason, failure=ending.failure, retry_at=None)
        if outcome.error is not None and peer.ended.is_set():
            return replace(outcome, error=await self._life.with_stderr(outcome.error))
        return outcome

    async def _end(self, turn: Turn, outcome: TurnOutcome, *changes: Change) -> None:
        await self._follow(await self._write_end(turn, outcome, *changes), outcome)

    async def _write_end(self, turn: Turn, outcome: TurnOutcome, *changes: Change) -> Turn:
        ended = outcome.applied_to(turn)
        if ended.state == "failed":
            why = logged(outcome.error, turn.agent_id, self._task.id)
            logger.info("Turn failed (%s): %s", outcome.failure or outcome.result, why)
        rest: Activity = "needs_login" if self._session.login.holds else "idle"
        activity: Activity = rest if self._life.ends_as is None else "stopping"
        await self._record.end_turn(ended, outcome, *changes, *self._session.turn_over(), activity=activity)
        return ended

    async def _follow(self, ended: Turn, outcome: TurnOutcome) -> None:
        """What follows a turn's end for the run and for its task."""
        agent, spent = self._record.agent, self._session.spent
        waiting = bool(self._queue.waiting)
        barred = agent.orchestrated and outcome.failure == "login"  # nobody logs in, and what waits would fail as well
        if (spent or barred or not waiting) and (ending := after(outcome, agent.orchestrated, spent)) is not None:
            # A process that takes one prompt may have been sent several before that was known.
            self._life.end(replace(ending, go_on=waiting and outcome.result != "failed"))
        if self._crew.on_turn_end is not None:
            try:
                await self._crew.on_turn_end(agent, ended, outcome)
            except KandevError:
                logger.exception("what follows the turn %s failed", ended.id)

    async def first(self) -> Turn | None:
        """The prompt that waits, if it may begin."""
        waiting = self._queue.waiting
        return waiting[0] if waiting and await self._crew.denied(waiting[0], self._task) is None else None

    # --- what watches it --------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Ends a process whose turn must not go on: cancelled and not obeying, or the whole run is to end."""
        while self._life.ends_as is None:
            deadline = self._cancel_deadline
            with anyio.move_on_after(None if deadline is None else deadline - anyio.current_time()) as grace:
                await self._life.woken()
            if grace.cancelled_caught:
                seconds = self._crew.settings.cancel_grace_s
                told = f"The agent did not end its turn within {seconds:g} s of the cancel"
                failure: Failure = "turn" if self._stalled is None else "stalled"
                self._life.end(Ending("FAILED", told, failure, go_on=self.interrupted))
        await self._life.end_process()

    def _stall_watch(self, peer: Peer) -> StallWatch:
        self._stalled, stalls = None, self._crew.stalls
        recover: Callable[[float], Awaitable[None]] | None = None if stalls.stall_action == "none" else self._recover
        return StallWatch(stalls.stall_timeout_s, peer, self._session, self._record.tell_stalled, recover)

    async def _recover(self, silent_s: float) -> None:
        """By the settings: its turn is cancelled, or the whole run ends as one that may be tried again."""
        told = f"The agent said nothing for {silent_s:g} s"
        if self._crew.stalls.stall_action == "restart":
            self._life.end(Ending("FAILED", told, "stalled"))
        else:
            self._stalled = f"{told}, so its turn was cancelled"
            await self.cancel()
