"""What runs are given: the floors they share, what each is to start, and whom they tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from kandev_host.interfaces import AgentType, Change, Decision, ProcessSpec, Runtime
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Task, Turn
from kandev_host.sessions.ending import Ending
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.presets import Preset
from kandev_host.sessions.turns import TurnOutcome
from kandev_host.settings import OrchestratorSettings, SessionSettings

TurnPolicy = Callable[[Turn, Task], Decision | None]
OnTurnEnd = Callable[[AgentInstance, Turn, TurnOutcome], Awaitable[None]]
OnEnd = Callable[[AgentInstance, Ending, Sequence[Change]], Awaitable[bool]]
OnExit = Callable[[AgentInstance, str | None], Awaitable[None]]


@dataclass(slots=True)
class Crew:
    """What all runs of a supervisor share. The callbacks are set by the services."""

    journal: Journal
    broker: PermissionBroker
    settings: SessionSettings
    turn_policies: Sequence[TurnPolicy] = ()
    on_turn_end: OnTurnEnd | None = None
    on_exit: OnExit | None = None
    on_end: OnEnd | None = None
    stalls: OrchestratorSettings = field(default_factory=OrchestratorSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is started, where and for what; `preset` overrides the one of the settings."""

    agent: AgentInstance
    task: Task
    agent_type: AgentType
    runtime: Runtime
    spec: ProcessSpec
    preset: Preset | None = None
