"""What runs are given: the floors they share, what each is to start, and whom they tell."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec

from kandev_host.errors import Unavailable
from kandev_host.interfaces import AgentType, Change, Decision, Process, ProcessSpec, Runtime
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Task, Turn
from kandev_host.sessions.audit import Looks
from kandev_host.sessions.capture import Capture, Captures, captured
from kandev_host.sessions.counted import Tally
from kandev_host.sessions.ending import Ending
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.prompts import PromptQueue
from kandev_host.sessions.stage import Equipment, Left, Resume
from kandev_host.sessions.turns import TurnOutcome
from kandev_host.sessions.usage import Priced
from kandev_host.settings import OrchestratorSettings, SessionSettings

logger = logging.getLogger(__name__)

TurnPolicy = Callable[[Turn, Task], Decision | Awaitable[Decision | None] | None]
OnTurnEnd = Callable[[AgentInstance, Turn, TurnOutcome], Awaitable[None]]
OnEnd = Callable[[AgentInstance, Ending, Sequence[Change]], Awaitable[bool]]
OnExit = Callable[[AgentInstance, str | None], Awaitable[None]]


class Crew(msgspec.Struct):
    """What all runs of a supervisor share. The callbacks are set by the services."""

    journal: Journal
    broker: PermissionBroker
    settings: SessionSettings
    turn_policies: Sequence[TurnPolicy] = ()
    on_turn_end: OnTurnEnd | None = None
    on_exit: OnExit | None = None
    on_end: OnEnd | None = None
    stalls: OrchestratorSettings = msgspec.field(default_factory=OrchestratorSettings)
    priced: Priced | None = None
    captures: Captures | None = None
    looks: Looks | None = None
    tally: Tally | None = None

    async def denied(self, turn: Turn, task: Task) -> str | None:
        """Why this turn may not start, if a plugin says so, or broke: that costs its turn, not the agent."""
        for policy in self.turn_policies:
            try:
                said = policy(turn, task)
                decision = await said if isinstance(said, Awaitable) else said
            except Unavailable as error:  # logged where it was noted
                return f"This turn may not start: a turn policy failed: {error.message}"
            except Exception as error:
                logger.exception("a turn policy failed")
                return f"This turn may not start: a turn policy failed ({error})"
            if decision is not None and decision.effect == "deny":
                return f"This turn may not start: {decision.reason}"
        return None


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What is started, where and for what.

    `situation` says what it may do without asking; `resume` is what it goes on with, `prompts` what waits for it
    already, and `equipment` what it has; `capture` keeps what goes over its pipes. With `left` nothing is started: its
    process outlived its host.
    """

    agent: AgentInstance
    task: Task
    agent_type: AgentType
    runtime: Runtime
    spec: ProcessSpec
    situation: Situation
    resume: Resume | None = None
    prompts: PromptQueue | None = None
    equipment: Equipment = Equipment()
    capture: Capture | None = None
    left: Left | None = None

    def captured(self, started: AbstractAsyncContextManager[Process]) -> AbstractAsyncContextManager[Process]:
        """The process, with a capture of its pipes if there is to be one."""
        return started if self.capture is None else captured(started, self.capture)
