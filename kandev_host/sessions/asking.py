"""What an agent asks for, who answers, and what waits in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import anyio
import msgspec

from kandev_host.interfaces import Change, Principal
from kandev_host.models import AgentInstance, PermissionRequest, Session, Task
from kandev_host.protocol.acp import Json
from kandev_host.sessions.left import effects_of
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.rulebook import Remember

Noted = Callable[[str], Sequence[Change]]


def unnoted(_row_id: str) -> Sequence[Change]:
    """Nothing: of a process that does not outlive its host."""
    return ()


class Asked(msgspec.Struct, frozen=True):
    """An agent's question: session/request_permission, with what the host knows around it.

    `noted` says what is to be recorded with the row, by its id, that the question becomes.
    """

    agent: AgentInstance
    task: Task
    session: Session
    turn_id: str | None
    tool_call: Json
    options: list[Json]
    noted: Noted = unnoted


class Answer(msgspec.Struct, frozen=True):
    """What somebody answers: an option or the outcome, for what they were shown, and for how long."""

    principal: Principal
    option_id: str | None
    outcome: Literal["cancelled"] | None
    digest: str | None
    remember: Remember | None


class Pending(msgspec.Struct):
    """A request that waits for its answer. `waited_s` is for how long it did so before, for an earlier run or host.

    `void` says why it is no more what was asked, or asked no more, while policies still looked at it.
    """

    request: PermissionRequest
    board_id: str
    situation: Situation
    done: anyio.Event
    outcome: Json | None = None
    waited_s: float = 0.0
    noted: Noted = unnoted
    void: str | None = None

    @property
    def also(self) -> Sequence[Change]:
        return self.noted(self.request.id)


def digest(acp_session_id: str, tool_call: Json, options: Sequence[Json]) -> str:
    """What an answer is bound to: session, call, what it does, and the options, as they were shown."""
    shown = [acp_session_id, tool_call.get("toolCallId"), effects_of(tool_call), list(options)]
    return hashlib.sha256(msgspec.json.encode(shown, order="sorted")).hexdigest()
