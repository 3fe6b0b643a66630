"""What a run's turns and its end do to its task and to the queue, each in one commit that only the holder can make."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from kandev_host.errors import Conflict, KandevError
from kandev_host.events import Event
from kandev_host.interfaces import Change, Expect, Put, Store
from kandev_host.models import AgentInstance, QueueEntry, Task, Turn
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.clock import Backoffs, Clock
from kandev_host.services.orchestration.entries import queue_event, waiting_again
from kandev_host.services.orchestration.lease import holding, release, taken, unchanged
from kandev_host.services.orchestration.retry import Again, again, uncounted
from kandev_host.services.orchestration.verdict import REQUEUE, Verdict, of_run, of_turn
from kandev_host.services.tasks import TaskService
from kandev_host.sessions.ending import Ending
from kandev_host.sessions.turns import TurnOutcome
from kandev_host.settings import OrchestratorSettings

log = logging.getLogger(__name__)
HOST = "host"


class Conclusions:
    """Called by the supervisor and the launcher with each end, and by `settling` for ends that nobody concluded.

    `ended_by` says of runs that somebody stopped who it was, until their end is judged here; `prompts_wait` whether an
    agent has prompts left to work on. `go_on` begins the run that follows one which would not be interrupted, and
    answers whether it could; then the end of that one means nothing for its task.
    """

    def __init__(
        self,
        store: Store,
        tasks: TaskService,
        locks: Locks,
        settings: OrchestratorSettings,
        *,
        ended_by: dict[str, str],
        go_on: Callable[[AgentInstance], Awaitable[bool]],
        prompts_wait: Callable[[str], bool],
        clock: Clock,
        backoffs: Backoffs,
        random: Callable[[], float],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._locks = locks
        self._settings = settings
        self._ended_by = ended_by
        self._go_on = go_on
        self._prompts_wait = prompts_wait
        self._clock = clock
        self._backoffs = backoffs
        self._random = random
        self._retry_at: dict[str, datetime] = {}
        self._concluded: set[str] = set()
        self._going_on: set[str] = set()

    async def on_turn_end(self, agent: AgentInstance, turn: Turn, outcome: TurnOutcome) -> None:
        """Give the task the state that the turn's end means; never against what a person decided meanwhile."""
        del turn
        found = of_turn(agent, outcome, auto_complete=self._settings.auto_complete)
        if found is None or (outcome.ok and self._prompts_wait(agent.id)):
            return
        async with self._locks.hold(f"task:{agent.task_id}"):
            try:
                await self._conclude(agent, await self._held(agent), found, ())
            except Conflict as error:
                log.info("a turn of agent %s changes nothing: %s", agent.id, error.message)

    async def on_end(self, agent: AgentInstance, ending: Ending, changes: Sequence[Change]) -> bool:
        """Write the end of a run, `changes`, in one commit with what it means; False if it means nothing more.

        `agent` is its row, ended. Raises what the store says.
        """
        if ending.retry_at is not None:
            self._retry_at[agent.id] = ending.retry_at
        by_person = agent.id in self._ended_by
        if ending.go_on and not by_person:
            self._going_on.add(agent.id)
            return False
        async with self._locks.hold(f"task:{agent.task_id}"):
            try:
                written = await self.of_ended(agent, ending.reason, by_person=by_person, changes=changes)
            except Conflict as error:
                log.info("the end of agent %s changes nothing else: %s", agent.id, error.message)
                return False
        if written:
            self._concluded.add(agent.id)
        return written

    async def on_exit(self, agent: AgentInstance, reason: str | None) -> None:
        """The end of a run is recorded; what it means too, unless `on_end` could not say so."""
        by_person, concluded = agent.id in self._ended_by, agent.id in self._concluded
        self._concluded.discard(agent.id)
        if agent.id in self._going_on:
            self._going_on.discard(agent.id)
            concluded = not by_person and await self._go_on(agent)
        if not concluded:
            async with self._locks.hold(f"task:{agent.task_id}"):
                try:
                    await self.of_ended(agent, reason, by_person=by_person)
                except Conflict as error:
                    log.info("the end of agent %s changes nothing else: %s", agent.id, error.message)
        self._retry_at.pop(agent.id, None)
        self._ended_by.pop(agent.id, None)

    async def of_ended(
        self,
        agent: AgentInstance,
        reason: str | None = None,
        *,
        by_person: bool = False,
        changes: Sequence[Change] = (),
    ) -> bool:
        """What the end of a run means, as its row tells it, committed with `changes`; False if nothing was written.

        The caller holds the task's lock.
        """
        by_person = by_person or agent.id in self._ended_by
        entry = await self._held(agent)
        reason = reason or agent.error_message
        found = of_run(
            agent,
            reason,
            by_person=by_person,
            holds_lease=entry is not None,
            auto_complete=self._settings.auto_complete,
        )
        if entry is not None and not by_person:
            more = self._again(agent, entry)
            if found == REQUEUE:  # its host went away in good order: no failed attempt, and the next need not wait
                more = Again(0.0, uncounted(entry.attempt), entry.host_deaths)
            if more is not None:
                return await self._requeue(agent, entry, more, reason, changes)
        return isinstance(found, Verdict) and await self._conclude(agent, entry, found, changes)

    async def refuse(self, seen: QueueEntry, error: KandevError) -> None:
        """A task that the queue could not start, and that would not start the next time either, has FAILED."""
        async with self._locks.hold(f"task:{seen.id}"):
            refused = Verdict("FAILED", error.message, ("TODO",))
            try:
                await self._transition(seen.id, refused, release(seen), unchanged(seen, taken(seen.id)))
            except Conflict as late:
                log.info("task %s is not refused: %s", seen.id, late.message)

    async def _held(self, agent: AgentInstance) -> QueueEntry | None:
        """The entry of which this run holds the lease."""
        entry = await self._store.get(QueueEntry, agent.task_id)
        return entry if entry is not None and entry.agent_id == agent.id else None

    def _again(self, agent: AgentInstance, entry: QueueEntry) -> Again | None:
        if agent.status != "FAILED":
            return None
        retry_at = self._retry_at.get(agent.id)
        return again(
            self._settings,
            agent.failure,
            attempt=entry.attempt,
            host_deaths=entry.host_deaths,
            lived_s=lived_s(agent),
            resets_in_s=None if retry_at is None else (retry_at - self._clock.now()).total_seconds(),
            random=self._random,
        )

    async def _requeue(
        self, agent: AgentInstance, entry: QueueEntry, more: Again, reason: str | None, changes: Sequence[Change]
    ) -> bool:
        """The task waits for its next run: TODO, with the reason for people, there and in the queue."""
        not_before = self._clock.now() + timedelta(seconds=more.delay_s) if more.delay_s > 0 else None
        waiting = waiting_again(
            entry,
            attempt=more.attempt,
            host_deaths=more.host_deaths,
            not_before=not_before,
            reason=reason,
            failure=agent.failure,
            resume_from=agent.id,
        )
        if not_before is not None:
            self._backoffs.note(entry.id, not_before, more.delay_s)
        changes = (*changes, Put(waiting), queue_event(waiting.id, waiting.board_id, waiting))
        return await self._transition(agent.task_id, Verdict("TODO", reason), changes, holding(agent, entry))

    async def _conclude(
        self, agent: AgentInstance, entry: QueueEntry | None, verdict: Verdict, changes: Sequence[Change]
    ) -> bool:
        changes = changes if entry is None else (*changes, *release(entry))
        actor = self._ended_by.get(agent.id, agent.id)
        return await self._transition(agent.task_id, verdict, changes, holding(agent, entry), actor=actor)

    async def _transition(
        self,
        task_id: str,
        verdict: Verdict,
        changes: Sequence[Change],
        expect: Sequence[Expect],
        *,
        actor: str = HOST,
    ) -> bool:
        """True if it was written: the task is there and in a state that this may change."""
        if await self._store.get(Task, task_id) is None:
            return False
        await self._tasks.transition(
            task_id,
            verdict.state,
            actor=actor,
            reason=verdict.reason,
            only_from=verdict.only_from,
            also=changes,
            expect=expect,
        )
        return any(isinstance(change, Event) and change.seq is not None for change in changes)


def lived_s(agent: AgentInstance) -> float:
    """How long the agent was seen to live; unknown, so 0, when its host died: nobody saw when it ended."""
    if agent.started_at is None or agent.failure == "host_died":
        return 0.0
    return ((agent.stopped_at or agent.updated_at) - agent.started_at).total_seconds()
