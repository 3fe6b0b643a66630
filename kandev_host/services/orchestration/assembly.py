"""Ties the parts of the orchestrator together."""

from __future__ import annotations

import random as chance
from collections.abc import Callable, Mapping

import msgspec

from kandev_host.interfaces import Bus, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.services.agents import AgentService
from kandev_host.services.launcher import Launcher
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.capacity import Capacity
from kandev_host.services.orchestration.clock import Backoffs, Clock
from kandev_host.services.orchestration.conclusions import Conclusions
from kandev_host.services.orchestration.dead import DeadRuns
from kandev_host.services.orchestration.dispatcher import Dispatcher
from kandev_host.services.orchestration.look import Looks
from kandev_host.services.orchestration.pause import Pause
from kandev_host.services.orchestration.service import OrchestratorService
from kandev_host.services.orchestration.settling import Settler
from kandev_host.services.orchestration.sweep import Sweep
from kandev_host.services.orchestration.views import QueueViews
from kandev_host.services.reach import Reach
from kandev_host.services.recovery import Recovery
from kandev_host.services.runs import LiveRuns
from kandev_host.services.supervision import Supervisor
from kandev_host.services.tasks import TaskService
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.settings import OrchestratorSettings


class Chance(msgspec.Struct, frozen=True, kw_only=True):
    """What the orchestrator cannot decide by itself: the time, and a number from 0 to 1."""

    clock: Clock = msgspec.field(default_factory=Clock)
    random: Callable[[], float] = chance.random


class Orchestration(msgspec.Struct, frozen=True, kw_only=True):
    service: OrchestratorService
    dispatcher: Dispatcher
    recovery: Recovery


def build_orchestration(
    settings: OrchestratorSettings,
    *,
    store: Store,
    journal: Journal,
    bus: Bus,
    runtimes: Mapping[str, Runtime],
    locks: Locks,
    runs: LiveRuns,
    tasks: TaskService,
    workspaces: WorkspaceService,
    agents: AgentService,
    launcher: Launcher,
    supervisor: Supervisor,
    reach: Reach,
    given: Chance,
) -> Orchestration:
    """The orchestrator, told by launcher and supervisor how runs end."""
    clock = given.clock
    backoffs, pause, dead = Backoffs(clock), Pause(store, journal), DeadRuns(store, journal)
    conclusions = Conclusions(
        store,
        tasks,
        locks,
        settings,
        ended_by=agents.ended_by,
        go_on=agents.go_on,
        prompts_wait=lambda agent_id: (live := supervisor.live(agent_id)) is not None and bool(live.prompts.waiting),
        clock=clock,
        backoffs=backoffs,
        random=given.random,
    )
    supervisor.on_turn_end = conclusions.on_turn_end
    supervisor.on_end = launcher.on_end = conclusions.on_end
    supervisor.on_exit = launcher.on_exit = conclusions.on_exit
    settler = Settler(store, journal, locks, settings, agents, conclusions)
    recovery = Recovery(
        store,
        runtimes,
        locks=locks,
        workspaces=workspaces,
        dead=dead,
        conclusions=conclusions,
        settler=settler,
        reach=reach,
    )
    looks = Looks(store, runs, agents, Capacity(settings, agents.types.limit_of), backoffs, pause)
    sweep = Sweep(store, runs, agents, dead, locks=locks, settings=settings, backoffs=backoffs, clock=clock)
    dispatcher = Dispatcher(
        store, bus, agents, looks=looks, settler=settler, conclusions=conclusions, sweep=sweep, clock=clock
    )
    views = QueueViews(
        store,
        settings,
        looks=looks,
        pause=pause,
        type_names=agents.types.names,
        recovery=lambda: recovery.report,
    )
    service = OrchestratorService(
        store,
        journal,
        settings=settings,
        locks=locks,
        runs=runs,
        tasks=tasks,
        agents=agents,
        pause=pause,
        views=views,
        dispatcher=dispatcher,
    )
    return Orchestration(service=service, dispatcher=dispatcher, recovery=recovery)
