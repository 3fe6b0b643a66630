"""How far an agent's pipes are recorded, for the host that goes on with them if this one dies.

Of a process that outlives its host, each commit also says which bytes of its stdout have their effects in the store by
then, and what is open between the two sides. It is computed as the commit takes its place in the journal's queue, so
that it is never ahead of what stands before it there, nor behind. Of other processes nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from kandev_host.interfaces import Change, Late, Remove
from kandev_host.models import HostState
from kandev_host.protocol.jsonrpc import Id

VERSION = 1


class OpenRequest(msgspec.Struct, kw_only=True):
    """A request of the agent that is not answered yet, and the row of the question that it became, if it is one."""

    id: Id
    row_id: str | None = None


class WireState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What lies before `position` is recorded. From `replay` on it is read again to know what the host knew by then.

    `next_id` is that of the host's next request. The prompt of `turn_id` has `prompt_id`; it may not have reached the
    agent until it is `sent`.
    """

    version: int = VERSION
    position: int = 0
    replay: int = 0
    next_id: int = 0
    turn_id: str | None = None
    prompt_id: int | None = None
    sent: bool = False
    cancelled: bool = False
    requests: list[OpenRequest] = []


def state_id(agent_id: str) -> str:
    """The id of the row that holds it."""
    return f"wire:{agent_id}"


def read_state(row: HostState | None) -> WireState | None:
    """None for one that is not there, or of another version."""
    try:
        state = None if row is None else msgspec.convert(row.value, WireState)
    except msgspec.ValidationError:
        return None
    return state if state is not None and state.version == VERSION else None


def forgotten(agent_id: str) -> Change:
    """What belongs into the commit that ends the run."""
    return Remove(HostState, state_id(agent_id))


class Wire:
    """Of one run. Each method answers what belongs into the commit that it is about: nothing unless it is `kept`.

    `batch` are where the lines begin of the updates that come next, and where the last one ends; `taken` is where ends
    what is being handled.
    """

    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id
        self._state: WireState | None = None
        self.batch: tuple[Sequence[int], int] = (), 0
        self.taken = 0

    def keep(self, state: WireState | None = None) -> WireState:
        """From now on; `state` is what the host that died had recorded."""
        self._state = state or WireState()
        self.taken = self._state.position
        return self._state

    @property
    def kept(self) -> bool:
        return self._state is not None

    def reached(self, held: int | None = None) -> tuple[Change, ...]:
        """All that was taken is recorded with this, up to where what is still `held` back begins."""
        to = self.taken if held is None else held

        def change(state: WireState) -> None:
            state.position = max(state.position, to)

        return self._late(change)

    def now(self) -> tuple[Change, ...]:
        """As it stands."""
        return self._late(lambda _state: None)

    def asked(self, id: Id) -> tuple[Change, ...]:
        """The agent asks something, with the line that was just taken."""
        to = self.taken

        def change(state: WireState) -> None:
            state.position = max(state.position, to)
            state.requests = [*_without(state.requests, id), OpenRequest(id=id)]

        return self._late(change)

    def noting(self, id: Id) -> Callable[[str], Sequence[Change]]:
        """Of the id of a row: this request became the question of that row."""

        def noted(row_id: str) -> Sequence[Change]:
            def change(state: WireState) -> None:
                state.requests = [*_without(state.requests, id), OpenRequest(id=id, row_id=row_id)]

            return self._late(change)

        return noted

    def answered(self, id: Id) -> tuple[Change, ...]:
        """The agent has been sent its answer."""

        def change(state: WireState) -> None:
            state.requests = _without(state.requests, id)

        return self._late(change)

    def prompting(self, turn_id: str, next_id: Callable[[], int]) -> tuple[Change, ...]:
        """The turn begins; its prompt is about to be sent, with an id of its own."""

        def change(state: WireState) -> None:
            state.turn_id, state.prompt_id = turn_id, next_id()
            state.next_id = state.prompt_id + 1
            state.sent = state.cancelled = False
            state.replay = state.position

        return self._late(change)

    def prompt_id(self, turn_id: str) -> int | None:
        """The id that the prompt of this turn has, if it has one already."""
        state = self._state
        return state.prompt_id if state is not None and state.turn_id == turn_id else None

    @property
    def unsent(self) -> int | None:
        """The id of the prompt that has not been sent yet."""
        return None if self._state is None or self._state.sent else self._state.prompt_id

    def sent(self) -> tuple[Change, ...]:
        """The agent has been sent its prompt."""

        def change(state: WireState) -> None:
            state.sent = True

        return self._late(change)

    def cancelling(self) -> tuple[Change, ...]:
        """The agent is about to be asked to end its turn."""

        def change(state: WireState) -> None:
            state.cancelled = True

        return self._late(change)

    def turn_over(self) -> tuple[Change, ...]:
        """The turn's end is recorded with this: what was said in it need not be known any more."""

        def change(state: WireState) -> None:
            state.turn_id = state.prompt_id = None
            state.sent = state.cancelled = False
            state.replay = state.position

        return self._late(change)

    def _late(self, change: Callable[[WireState], None]) -> tuple[Change, ...]:
        state, id = self._state, state_id(self._agent_id)
        if state is None:
            return ()

        def made() -> HostState:
            change(state)
            value: dict[str, Any] = msgspec.to_builtins(state)
            return HostState(id=id, value=value)

        return (Late(HostState(id=id), made),)


def _without(requests: Sequence[OpenRequest], id: Id) -> list[OpenRequest]:
    return [each for each in requests if each.id != id]
