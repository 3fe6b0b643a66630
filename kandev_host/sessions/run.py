"""One run of an agent: a process, its session, its turns, its end. One live agent is one task."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import anyio
import msgspec

from kandev_host.errors import Busy, Conflict, KandevError
from kandev_host.interfaces import Change, Process, Put, Stats
from kandev_host.models import Activity, AgentInstance, AgentStatus, Session, Turn, now
from kandev_host.sessions.conclusion import Conclusion
from kandev_host.sessions.crew import Crew, Launch
from kandev_host.sessions.dialects import dialect
from kandev_host.sessions.ending import Ending, end_process, not_started
from kandev_host.sessions.failures import AgentFailed, cause_of
from kandev_host.sessions.logs import AgentLogs
from kandev_host.sessions.peer import Peer
from kandev_host.sessions.record import RunRecord
from kandev_host.sessions.session import LiveSession, Stage
from kandev_host.sessions.stalls import StallWatch
from kandev_host.sessions.turns import TurnOutcome

logger = logging.getLogger(__name__)

QUEUED_PROMPTS = 100
LOGS_S = 5.0
STDERR_S = 1.0


class AgentRun:
    """A live agent: what it does now, its session, its prompts."""

    def __init__(self, crew: Crew, launch: Launch) -> None:
        agent, task = launch.agent, launch.task
        self._crew = crew
        self._launch = launch
        self._record = RunRecord(crew.journal, agent, task, lambda: self._ending is not None)
        self._queue: deque[Turn] = deque()
        self._wake = anyio.Event()
        self._process: Process | None = None
        self._peer: Peer | None = None
        self._ending: Ending | None = None
        self._forced = anyio.Event()
        self._cancel_deadline: float | None = None
        self._stalled: str | None = None  # why its turn was cancelled, if silence was the reason
        self._conclusion: Conclusion | None = None
        self._beginning: anyio.Event | None = None  # while a turn is on its way to the agent; set: cancelled
        settings = crew.settings
        self.logs = AgentLogs(
            crew.journal,
            agent.id,
            line_limit_bytes=settings.stderr_line_limit_bytes,
            lines_kept=settings.log_lines_kept,
        )
        stage = Stage(
            agent=agent,
            current=lambda: self.agent,
            task=task,
            agent_type=launch.agent_type,
            journal=crew.journal,
            broker=crew.broker,
            settings=settings,
            logs=self.logs,
            preset=launch.preset,
            set_activity=self._record.post_activity,
        )
        self._session: LiveSession = dialect(launch.agent_type)(stage)
        self.task = task
        self.ended = anyio.Event()
        self.loop_task_id: int | None = None

    # --- what services see ------------------------------------------------------------------------------------------

    @property
    def agent(self) -> AgentInstance:
        """The agent's row as last recorded."""
        return self._record.agent

    @property
    def turn(self) -> Turn | None:
        """The turn that runs."""
        return self._record.turn

    @property
    def activity(self) -> Activity | None:
        return self.agent.activity

    @property
    def session(self) -> Session | None:
        """The session's row, with its modes, options and commands as last told; None until it is open."""
        return self._session.row

    @property
    def ending(self) -> bool:
        return self._ending is not None or self.ended.is_set()

    @property
    def queued(self) -> tuple[Turn, ...]:
        return tuple(self._queue)

    async def stats(self) -> Stats:
        """Resource use of the agent and all that it started."""
        return Stats() if self._process is None else await self._process.stats()

    async def prompt(self, blocks: list[dict[str, Any]], created_by: str, *, interrupt: bool = False) -> str:
        """Queue a prompt, or with `interrupt` put it first and cancel the running turn; its turn's id.

        Raises `Conflict` when the agent is ending, `Busy` when too many prompts wait.
        """
        if self.ending:
            raise Conflict("The agent is ending", state=self.agent.status)
        if len(self._queue) >= QUEUED_PROMPTS:
            raise Busy(f"{QUEUED_PROMPTS} prompts already wait for this agent")
        turn = Turn(agent_id=self.agent.id, task_id=self.task.id, prompt=blocks, created_by=created_by)
        await self._crew.journal.record(Put(turn))
        if self._ending is not None or self.ended.is_set():
            late = TurnOutcome(result="cancelled", error="The agent ended before this prompt's turn")
            await self._crew.journal.record(Put(late.applied_to(turn)))
            raise Conflict("The agent is ending", state=self.agent.status)
        if interrupt:
            self._queue.appendleft(turn)
            await self.cancel()
        else:
            self._queue.append(turn)
        self._wake.set()
        return turn.id

    async def cancel(self) -> bool:
        """Cancel the running turn; False if none runs. A turn that does not end in time costs the agent its life."""
        if self._beginning is not None:
            self._beginning.set()
            return True
        asked = await self._session.cancel()
        if asked and self._cancel_deadline is None:
            self._cancel_deadline = anyio.current_time() + self._crew.settings.cancel_grace_s
            self._wake.set()
        return asked

    def end(self, ending: Ending) -> None:
        """Begin to end the run; the first reason stays, force hastens it."""
        if self._ending is None:
            self._ending = ending
        if ending.force:
            self._forced.set()
        self._wake.set()

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From start to the recorded end. Raises nothing but cancellation."""
        self.loop_task_id = anyio.get_current_task().id
        ending: Ending | None = None
        try:
            ending = await self._live()
        except KandevError as error:
            ending = _failed(error)
        except Exception as error:
            logger.exception("the run of agent %s broke", self.agent.id)
            ending = Ending("FAILED", f"The host failed: {type(error).__name__}", "turn")
        finally:
            with anyio.CancelScope(shield=True):
                ending = ending or self._ending or Ending("FAILED", "The host ended", "host_died")
                await self._record_end(ending)
                self.ended.set()

    async def catch_up(self) -> None:
        """After `run`: an end that the store would not take is written as soon as it does."""
        if self._conclusion is not None:
            await self._conclusion.catch_up()

    async def _live(self) -> Ending:
        if self._ending is not None:
            return self._ending
        await self._record.write(status="STARTING", activity="starting", started_at=now())
        async with AsyncExitStack() as stack:
            try:
                process = await stack.enter_async_context(self._launch.runtime.spawn(self._launch.spec))
            except KandevError as error:
                return await not_started(self._launch.runtime, self._launch.spec, error)
            return await self._live_with(process)

    async def _live_with(self, process: Process) -> Ending:
        settings = self._crew.settings
        peer = self._peer = Peer(
            process,
            self._session,
            line_limit_bytes=settings.line_limit_bytes,
            fault_limit=settings.fault_limit_lines,
        )
        async with anyio.create_task_group() as tasks:
            for job in (peer.run, self.logs.run):
                tasks.start_soon(job)
            for watch in (self.logs.drain, self._heartbeat):
                tasks.start_soon(watch, process)
            tasks.start_soon(self._wake_at_end, peer)
            self._process = process
            try:
                ending = await self._work(process, peer)
            except KandevError as error:
                ending = self._ending or _failed(error)
            finally:
                await self._finish(process, peer)
                tasks.cancel_scope.cancel()
        return ending

    async def _wake_at_end(self, peer: Peer) -> None:
        await peer.ended.wait()
        self._wake.set()

    async def _work(self, process: Process, peer: Peer) -> Ending:
        """Open the session and run the turns; how the run ended."""
        await self._record.write(process_ref=process.ref)
        if not await self._open(peer):
            return await self._verdict(peer)
        while True:
            self._wake = anyio.Event()
            if self._ending is not None or peer.ended.is_set():
                return await self._verdict(peer)
            if self._queue:
                await self._run_turn(self._queue.popleft(), peer)
            else:
                await self._wake.wait()

    async def _open(self, peer: Peer) -> bool:
        """False if the run was told to end meanwhile."""
        row: Session | None = None
        failure: KandevError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_opening, tasks.cancel_scope)
            try:
                row = await self._session.open(peer, self._launch.spec.cwd)
            except KandevError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise AgentFailed(await self._with_stderr(failure.message, peer), cause_of(failure)) from failure
        if row is not None:
            self._record.acp_session_id = row.acp_session_id
            await self._record.write(status="RUNNING", activity="idle", session_id=row.id)
        return row is not None

    async def _watch_opening(self, opening: anyio.CancelScope) -> None:
        while self._ending is None:
            await self._wake.wait()
            self._wake = anyio.Event()
        opening.cancel()

    async def _run_turn(self, turn: Turn, peer: Peer) -> None:
        self._cancel_deadline = None
        row = self.session
        turn = msgspec.structs.replace(
            turn, state="running", started_at=now(), session_id=row.id if row is not None else None
        )
        denied = self._denied(turn)
        if denied is not None:
            await self._end_turn(turn, TurnOutcome(result="failed", error=denied, failure="turn"))
            return
        beginning = self._beginning = anyio.Event()
        try:
            await self._record.begin_turn(turn)
        finally:
            self._beginning = None
        if beginning.is_set():
            await self._end_turn(turn, TurnOutcome(result="cancelled", asked_to_cancel=True))
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_turn)
            tasks.start_soon(self._stall_watch(peer).run)
            outcome = await self._session.prompt(turn)
            tasks.cancel_scope.cancel()
        self._cancel_deadline = None
        outcome = await self._judged(outcome, peer)
        usage, changes = self._session.close_turn(turn)
        await self._end_turn(turn, replace(outcome, usage=usage), *changes)

    async def _judged(self, outcome: TurnOutcome, peer: Peer) -> TurnOutcome:
        """The outcome with the host's own part in it: it may have cut the turn short."""
        if outcome.result == "cancelled" and self._stalled is not None:
            return replace(outcome, asked_to_cancel=False, error=self._stalled, failure="stalled")
        if outcome.result == "failed" and self._ending is not None:
            return replace(outcome, error=self._ending.reason, failure=self._ending.failure, retry_at=None)
        if outcome.error is not None and peer.ended.is_set():
            return replace(outcome, error=await self._with_stderr(outcome.error, peer))
        return outcome

    async def _end_turn(self, turn: Turn, outcome: TurnOutcome, *changes: Change) -> None:
        ended = outcome.applied_to(turn)
        activity: Activity = "idle" if self._ending is None else "stopping"
        await self._record.end_turn(ended, outcome, *changes, activity=activity)
        if self.agent.orchestrated and not self._queue and outcome.result in {"completed", "failed", "empty"}:
            status: AgentStatus = "COMPLETED" if outcome.ok else "FAILED"
            self.end(Ending(status, outcome.error, outcome.failure, outcome.retry_at, gently=True))
        if self._crew.on_turn_end is not None:
            try:
                await self._crew.on_turn_end(self.agent, ended, outcome)
            except KandevError:
                logger.exception("what follows the turn %s failed", ended.id)

    def _denied(self, turn: Turn) -> str | None:
        for policy in self._crew.turn_policies:
            decision = policy(turn, self.task)
            if decision is not None and decision.effect == "deny":
                return f"This turn may not start: {decision.reason}"
        return None

    async def _watch_turn(self) -> None:
        """Ends a process whose turn must not go on: cancelled and not obeying, or the whole run is to end."""
        while self._ending is None:
            deadline = self._cancel_deadline
            with anyio.move_on_after(None if deadline is None else deadline - anyio.current_time()) as grace:
                await self._wake.wait()
                self._wake = anyio.Event()
            if grace.cancelled_caught:
                seconds = self._crew.settings.cancel_grace_s
                told = f"The agent did not end its turn within {seconds:g} s of the cancel"
                self.end(Ending("FAILED", told, "turn" if self._stalled is None else "stalled"))
        await self._end_process(self._ending)

    def _stall_watch(self, peer: Peer) -> StallWatch:
        self._stalled = None
        stalls = self._crew.stalls
        recover = None if stalls.stall_action == "none" else self._recover
        return StallWatch(stalls.stall_timeout_s, peer, self._session, self._record.tell_stalled, recover)

    async def _recover(self, silent_s: float) -> None:
        """By the settings: its turn is cancelled, or the whole run ends as one that may be tried again."""
        told = f"The agent said nothing for {silent_s:g} s"
        if self._crew.stalls.stall_action == "restart":
            self.end(Ending("FAILED", told, "stalled"))
        else:
            self._stalled = f"{told}, so its turn was cancelled"
            await self.cancel()

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _verdict(self, peer: Peer) -> Ending:
        if self._ending is not None:
            return self._ending
        told = await self._with_stderr(f"The agent {peer.end_reason or 'ended'}", peer)
        return Ending("FAILED", told, peer.end_failure)

    async def _end_process(self, ending: Ending) -> None:
        if self._process is not None:
            grace_s = self._crew.settings.kill_grace_s
            await end_process(self._process, self._session, ending, self._forced, grace_s)

    async def _finish(self, process: Process, peer: Peer) -> None:
        """Whatever happened, the process is gone afterwards, nobody waits for a permission, and the log is stored."""
        with anyio.CancelScope(shield=True):
            await self._crew.broker.cancel_all(self.agent.id, "the agent ended")
            await self._say_stopping()
            await self._end_process(self._ending or Ending("FAILED", None))
            with anyio.move_on_after(LOGS_S):
                await self.logs.drained.wait()
                await peer.ended.wait()
            self.logs.close()
            with anyio.move_on_after(LOGS_S):
                await self.logs.stored.wait()
            self._process = None

    async def _say_stopping(self) -> None:
        try:
            await self._record.post_activity("stopping")
        except KandevError as error:
            logger.warning("the agent's activity was not recorded: %s", error)

    async def _record_end(self, ending: Ending) -> None:
        crew, exit_code = self._crew, self._peer.exit_code if self._peer is not None else None
        changes = self._record.end(ending, tuple(self._queue), self.session, exit_code)
        self._queue.clear()
        told = (crew.on_end, crew.on_exit)
        self._conclusion = Conclusion(crew.journal, self.agent, ending, changes, *told)
        await self._conclusion.record()

    async def _with_stderr(self, message: str, peer: Peer) -> str:
        """The message and, for a process that is gone, the last lines of what it said on stderr."""
        if peer.ended.is_set():
            with anyio.move_on_after(STDERR_S):
                await self.logs.drained.wait()
        tail = self.logs.tail()
        return f"{message}\n{tail}" if tail else message

    async def _heartbeat(self, process: Process) -> None:
        while True:
            await anyio.sleep(self._crew.settings.heartbeat_interval_s)
            stats = await process.stats()
            last = self._session.last_update
            self._record.beat(stats.cpu_s, stats.rss_bytes, None if last is None else time.monotonic() - last)


def _failed(error: KandevError) -> Ending:
    cause = cause_of(error)
    return Ending("FAILED", error.message, cause.failure, cause.retry_at)
