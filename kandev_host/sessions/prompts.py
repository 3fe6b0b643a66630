"""The prompts that wait for an agent, in order: rows that outlive the run, and what mirrors them while it lives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from msgspec.structs import replace

from kandev_host import tracing
from kandev_host.errors import Busy, Conflict
from kandev_host.events import Event, event
from kandev_host.interfaces import Change, Expect, Op, Put, Shift
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Turn, now
from kandev_host.protocol.notifications import PromptsNotice, WaitingPrompt

QUEUED_PROMPTS = 100
SHOWN_CHARS = 200
CHANGE_S = 10.0
REMOVED = "Taken out of the queue"
ENDED = "The agent ended before this prompt's turn"

Block = dict[str, Any]
T = TypeVar("T")


class PromptQueue:
    """The rows are the truth: turns with state `queued`, their `position` dense from 0; this mirrors them.

    Each change is one commit, together with its `queue.updated`. There is one of it for an agent at a time: the run's,
    or one that is made for a change while the agent does not live. `waiting` are the rows, in order.
    """

    def __init__(self, journal: Journal, agent: AgentInstance, waiting: Sequence[Turn] = ()) -> None:
        self._journal = journal
        self._agent = agent
        self._waiting = tuple(waiting)
        self._origins: dict[str, tracing.SpanContext] = {}
        self._note_origin(*waiting)
        self._lock = anyio.Lock()
        self._closed = False

    @property
    def waiting(self) -> tuple[Turn, ...]:
        """The next one first."""
        return self._waiting

    async def add(self, blocks: list[Block], created_by: str, *, first: bool = False) -> Turn:
        """Let a prompt wait, behind the others or before them. Raises `Busy` beyond QUEUED_PROMPTS, `Conflict`."""
        async with self._changing():
            if len(self._waiting) >= QUEUED_PROMPTS:
                raise Busy(f"{QUEUED_PROMPTS} prompts already wait for this agent")
            agent, position = self._agent, 0 if first else len(self._waiting)
            turn = Turn(
                agent_id=agent.id, task_id=agent.task_id, prompt=blocks, created_by=created_by, position=position
            )
            room = [self._shift(1, (">=", 0))] if first else []
            after = (turn, *self._waiting) if first else (*self._waiting, turn)
            await self._write(after, *room, Put(turn))
            self._note_origin(turn)
            return turn

    async def change(self, prompt_id: str, *, blocks: list[Block] | None = None, position: int | None = None) -> None:
        """Give a prompt that waits other words, another place, or both; one beyond the end is the last.

        Raises `Conflict` for one that does not wait here (any more).
        """
        async with self._changing():
            at, turn = self._find(prompt_id)
            to = at if position is None else min(position, len(self._waiting) - 1)
            changed = replace(turn, prompt=turn.prompt if blocks is None else blocks, position=to)
            if changed == turn:
                return
            others = [each for each in self._waiting if each is not turn]
            room: list[Change] = []
            if to > at:
                room = [self._shift(-1, (">", at), ("<=", to))]
            elif to < at:
                room = [self._shift(1, (">=", to), ("<", at))]
            after = (*others[:to], changed, *others[to:])
            await self._write(after, *room, Put(changed), expect=_waits(turn))

    async def remove(self, prompt_id: str) -> None:
        """Take a prompt out, which is then cancelled. Raises `Conflict` for one that does not wait here (any more)."""
        async with self._changing():
            at, turn = self._find(prompt_id)
            after = tuple(each for each in self._waiting if each is not turn)
            await self._write(after, Put(cancelled(turn, REMOVED)), self._shift(-1, (">", at)), expect=_waits(turn))

    async def take(self, begin: Callable[[Turn, Sequence[Change]], Awaitable[T]]) -> T | None:
        """Hand the first prompt, if there is one, to `begin`, which records these changes with what becomes of it.

        What that answers; raises what it raises, and then the prompt waits as before.
        """
        async with self._lock:
            if not self._waiting:
                return None
            turn, *left = self._waiting
            answer = await begin(turn, (self._shift(-1, (">", 0)), self._told(left)))
            self._waiting = _placed(left)
            return answer

    def origin(self, turn_id: str) -> tracing.SpanContext | None:
        """The span in which this prompt came in, as far as this process knows. Once."""
        return self._origins.pop(turn_id, None)

    async def close(self) -> tuple[Turn, ...]:
        """No more changes from here on, for the run ends; what waits."""
        self._closed = True
        with anyio.move_on_after(CHANGE_S):
            async with self._lock:  # what is being written comes first
                pass
        return self._waiting

    def emptied(self) -> Event:
        """What to record with the end of all that waits, or with its move to another run."""
        return self._told(())

    def told(self) -> Event:
        """What to record with the beginning of a run for which something waits."""
        return self._told(self._waiting)

    # --- inside -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """One change at a time. Raises `Conflict` at the end of the run, `Busy` while the store is."""
        with anyio.move_on_after(CHANGE_S) as patience:
            await self._lock.acquire()
        if patience.cancelled_caught:
            raise Busy("The prompts of this agent are being changed; try again")
        try:
            if self._closed:
                raise Conflict("The agent is ending", state="stopping", agent_id=self._agent.id)
            with anyio.CancelScope(shield=True):  # rows and mirror change together; the journal has deadlines
                yield
        finally:
            self._lock.release()

    async def _write(self, after: Sequence[Turn], *changes: Change, expect: Sequence[Expect] = ()) -> None:
        await self._journal.record(*changes, self._told(after), expect=expect)
        self._waiting = _placed(after)

    def _note_origin(self, *turns: Turn) -> None:
        span = tracing.current().context
        if span is not None:
            waiting = {turn.id for turn in self._waiting}
            self._origins = {id: origin for id, origin in self._origins.items() if id in waiting}
            self._origins.update(dict.fromkeys((turn.id for turn in turns), span))

    def _find(self, prompt_id: str) -> tuple[int, Turn]:
        for at, turn in enumerate(self._waiting):
            if turn.id == prompt_id:
                return at, turn
        raise begun("running")

    def _shift(self, by: int, *places: tuple[Op, int]) -> Shift:
        """Move the rows at these places up or down."""
        mine: list[tuple[str, Op, Any]] = [("agent_id", "=", self._agent.id), ("state", "=", "queued")]
        return Shift(Turn, "position", by, [*mine, *(("position", op, place) for op, place in places)])

    def _told(self, waiting: Sequence[Turn]) -> Event:
        ids = {"agent_id": self._agent.id, "task_id": self._agent.task_id}
        prompts = [
            WaitingPrompt(prompt_id=turn.id, position=at, text=text_of(turn), created_by=turn.created_by)
            for at, turn in enumerate(waiting)
        ]
        return event("queue.updated", PromptsNotice(**ids, prompts=prompts), **ids)


def begun(state: str) -> Conflict:
    """For a prompt that does not wait any more."""
    said = "has begun" if state == "running" else "is over"
    return Conflict(f"This prompt waits no more: its turn {said}", state=state)


def cancelled(turn: Turn, reason: str) -> Turn:
    """A prompt that will not be sent."""
    return replace(turn, state="cancelled", error=reason, ended_at=now())


def text_of(turn: Turn) -> str:
    """The beginning of what a prompt says; what is no text by its kind."""
    parts = (str(block["text"]) if block.get("type") == "text" else f"[{block.get('type')}]" for block in turn.prompt)
    return " ".join(parts)[:SHOWN_CHARS]


def _placed(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple(turn if turn.position == at else replace(turn, position=at) for at, turn in enumerate(turns))


def _waits(turn: Turn) -> list[Expect]:
    return [Expect(Turn, turn.id, begun("running"), "state", ("queued",))]
