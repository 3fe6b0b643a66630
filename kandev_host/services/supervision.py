"""What the services need of the supervisor of live agents (`kandev_host.sessions`), and nothing more of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol

import anyio
from msgspec import Raw

from kandev_host.interfaces import AgentType, Change, ProcessSpec, Runtime, Stats
from kandev_host.models import Activity, AgentInstance, AgentStatus, Session, Task, Turn
from kandev_host.sessions.audit import Looks
from kandev_host.sessions.ending import Ending
from kandev_host.sessions.logins import Login
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.prompts import PromptQueue
from kandev_host.sessions.stage import Equipment, Left, Resume
from kandev_host.sessions.steering import Steering
from kandev_host.sessions.turns import TurnOutcome

OnTurnEnd = Callable[[AgentInstance, Turn, TurnOutcome], Awaitable[None]]
OnEnd = Callable[[AgentInstance, Ending, Sequence[Change]], Awaitable[bool]]
OnExit = Callable[[AgentInstance, str | None], Awaitable[None]]


class LiveAgent(Protocol):
    """An agent that lives; `agent` is its row as last recorded."""

    @property
    def agent(self) -> AgentInstance: ...

    @property
    def activity(self) -> Activity | None: ...

    @property
    def session(self) -> Session | None: ...

    @property
    def prompts(self) -> PromptQueue:
        """Those that wait."""
        ...

    @property
    def login(self) -> Login:
        """Whether it wants a log-in, and doing it."""
        ...

    @property
    def steering(self) -> Steering:
        """The options of its session, and setting them."""
        ...

    @property
    def ending(self) -> bool:
        """Does it take no prompt any more?"""
        ...

    @property
    def known(self) -> anyio.Event:
        """Set once all is known again that the host knew which died, if it goes on with what that left."""
        ...

    async def stats(self) -> Stats: ...

    @property
    def ask(self) -> Callable[[str, dict[str, Any], float], Awaitable[Raw]]:
        """(method, params, timeout_s) → what the agent answers. Raises `AgentError`, `TimedOut`."""
        ...


class Supervisor(Protocol):
    """Owns the live agents and writes their rows, from `start` on until their end is recorded."""

    @property
    def runs(self) -> Sequence[object]:
        """The live ones."""
        ...

    @property
    def on_turn_end(self) -> OnTurnEnd | None: ...

    @on_turn_end.setter
    def on_turn_end(self, callback: OnTurnEnd | None) -> None: ...

    @property
    def on_end(self) -> OnEnd | None: ...

    @on_end.setter
    def on_end(self, callback: OnEnd | None) -> None: ...

    @property
    def on_exit(self) -> OnExit | None: ...

    @on_exit.setter
    def on_exit(self, callback: OnExit | None) -> None: ...

    @property
    def looks(self) -> Looks | None: ...

    @looks.setter
    def looks(self, looks: Looks | None) -> None: ...

    async def start(
        self,
        *,
        agent: AgentInstance,
        task: Task,
        agent_type: AgentType,
        runtime: Runtime,
        spec: ProcessSpec,
        created_by: str,
        situation: Situation | None = None,
        resume: Resume | None = None,
        prompts: PromptQueue | None = None,
        equipment: Equipment = ...,
        left: Left | None = None,
    ) -> object:
        """Start it, or go on with what a host has `left` that died, and return at once.

        `prompts` are those that wait for it already.
        """
        ...

    async def prompt(
        self, agent_id: str, blocks: list[dict[str, Any]], created_by: str, mode: Literal["queue", "interrupt"]
    ) -> str:
        """The id of the turn. Raises `NotFound` or `Conflict` when the agent does not live."""
        ...

    async def cancel(self, agent_id: str) -> bool:
        """False if no turn runs."""
        ...

    async def stop(
        self, agent_id: str, *, force: bool = False, reason: str | None = None, status: AgentStatus = "STOPPED"
    ) -> AgentInstance:
        """Its row when it is gone, and recorded unless `unrecorded`. Raises `Conflict` when it does not live."""
        ...

    def unrecorded(self, agent_id: str) -> bool:
        """Is it gone, and its end not recorded yet?"""
        ...

    def live(self, agent_id: str) -> LiveAgent | None: ...
