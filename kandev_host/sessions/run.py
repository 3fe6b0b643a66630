"""One run of an agent: a process, its session, its turns, its end. One live agent is one task."""

from __future__ import annotations

import logging
import time
from contextlib import AsyncExitStack
from typing import Any

import anyio

from kandev_host import tracing
from kandev_host.errors import Conflict, KandevError
from kandev_host.interfaces import Process, Put, Stats, container_of
from kandev_host.log_ids import bound
from kandev_host.models import Activity, AgentInstance, Session, Turn, now
from kandev_host.sessions.conclusion import Conclusion
from kandev_host.sessions.counted import new_peer, new_surviving_peer
from kandev_host.sessions.crew import Crew, Launch
from kandev_host.sessions.dialects import dialect
from kandev_host.sessions.ending import Ending, end_process, failed, not_started
from kandev_host.sessions.failures import AgentFailed, cause_of
from kandev_host.sessions.lazy_event import LazyEvent
from kandev_host.sessions.logs import AgentLogs
from kandev_host.sessions.peer import Peer
from kandev_host.sessions.prompts import ENDED, PromptQueue, cancelled
from kandev_host.sessions.record import RunRecord
from kandev_host.sessions.session import LiveSession
from kandev_host.sessions.stage import Left, Stage
from kandev_host.sessions.surviving import SurvivingPeer
from kandev_host.sessions.turning import Floor, Turning
from kandev_host.sessions.wire import Wire, forgotten

logger = logging.getLogger(__name__)

LOGS_S = 5.0
STDERR_S = 1.0
TAKEN_OVER = "The host was started again, and goes on with this process"


class AgentRun:
    """A live agent: what it does now, its session, its prompts."""

    def __init__(self, crew: Crew, launch: Launch) -> None:
        agent, task = launch.agent, launch.task
        self._crew = crew
        self._launch = launch
        self._launching = tracing.current()  # ends with the session's opening
        self._record = RunRecord(crew.journal, agent, task, lambda: self._ending is not None)
        self.prompts = launch.prompts or PromptQueue(crew.journal, agent)
        self._wake = anyio.Event()
        self._process: Process | None = None
        self._peer: Peer | None = None
        self._ending: Ending | None = None
        self._forced = anyio.Event()
        self._keeps_prompts = True
        self._conclusion: Conclusion | None = None
        self.logs = AgentLogs(crew.journal, agent.id, crew.settings)
        self._wire = Wire(agent.id)
        stage = Stage(
            agent=agent,
            current=lambda: self.agent,
            task=task,
            agent_type=launch.agent_type,
            journal=crew.journal,
            broker=crew.broker,
            settings=crew.settings,
            logs=self.logs,
            situation=launch.situation,
            set_activity=self._record.post_activity,
            resume=launch.resume,
            equipment=launch.equipment,
            priced=crew.priced,
            wake=self.wake,
            looks=crew.looks,
            wire=self._wire,
        )
        self._session: LiveSession = dialect(launch.agent_type)(stage)
        self.ask = self._session.ask
        self.release = launch.equipment.release
        self.login, self.steering = self._session.login, self._session.steering
        floor = Floor(crew=crew, task=task, record=self._record, session=self._session, queue=self.prompts)
        self._turning = Turning(floor, self)
        self.task = task
        self.ended = LazyEvent()
        self.known = anyio.Event()
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

    async def stats(self) -> Stats:
        """Resource use of the agent and all that it started."""
        return Stats() if self._process is None else await self._process.stats()

    async def prompt(self, blocks: list[dict[str, Any]], created_by: str, *, interrupt: bool = False) -> str:
        """Queue a prompt, or with `interrupt` put it first and cancel the running turn; its turn's id.

        Raises `Conflict` when the agent is ending, `Busy` when too many prompts wait.
        """
        if self.ending:
            raise Conflict("The agent is ending", state=self.agent.status)
        if self._session.one_turn and (self._session.spent or self.turn or self.prompts.waiting):
            raise Conflict("The agent takes one prompt, and has it", state="one_turn")
        turn = await self.prompts.add(blocks, created_by, first=interrupt)
        if self.ending and not self._keeps_prompts:
            await self._crew.journal.record(Put(cancelled(turn, ENDED)))
            raise Conflict("The agent is ending", state=self.agent.status)
        if interrupt:
            await self._turning.interrupt(turn)
        self.login.holds = False
        self._wake.set()
        return turn.id

    async def cancel(self) -> bool:
        """Cancel the running turn; False if none runs. A turn that does not end in time costs the agent its life."""
        return await self._turning.cancel()

    def end(self, ending: Ending) -> None:
        """Begin to end the run; the first reason stays, force hastens it. On purpose: what waits is dropped."""
        self._keeps_prompts = self._keeps_prompts and ending.keeps_prompts
        if self._ending is None:
            self._ending = ending
        if ending.force:
            self._forced.set()
        self._wake.set()

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From start to the recorded end. Raises nothing but cancellation."""
        self.loop_task_id = anyio.get_current_task().id
        ids = bound(alone=True, task_id=self.task.id, agent_id=self.agent.id, session_id=self._session_id)
        with ids:
            await self._run()

    def _session_id(self) -> str | None:
        return None if self.session is None else self.session.id

    async def _run(self) -> None:
        ending: Ending | None = None
        try:
            ending = await self._live()
        except KandevError as error:
            ending = failed(error)
        except Exception as error:
            logger.exception("the run of agent %s broke", self.agent.id)
            ending = Ending("FAILED", f"The host failed: {type(error).__name__}", "turn")
        finally:
            with anyio.CancelScope(shield=True):
                self.known.set()
                ending = ending or self._ending or Ending("FAILED", "The host ended", "host_died")
                self._launching.end(ending.failure)
                await self._record_end(ending)
                self.ended.set()

    async def catch_up(self) -> None:
        """After `run`: an end that the store would not take is written as soon as it does."""
        if self._conclusion is not None:
            await self._conclusion.catch_up()

    async def _live(self) -> Ending:
        if self._ending is not None:
            return self._ending
        launch, left = self._launch, self._launch.left
        if left is None:
            await self._record.write(status="STARTING", activity="starting", started_at=now())
        first = None if left is not None else await self._turning.first()
        async with AsyncExitStack() as stack:
            try:
                if left is None:
                    started = self._session.process(launch.runtime, launch.spec, first)
                else:
                    started = self._session.left_process(launch.runtime, launch.spec, left)
                process = await stack.enter_async_context(self._launch.captured(started))
            except KandevError as error:
                return await not_started(self._launch.runtime, self._launch.spec, error)
            return await self._live_with(process)

    async def _live_with(self, process: Process) -> Ending:
        peer = self._peer = self._peer_of(process)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hear, peer)
            tasks.start_soon(self.logs.run)
            for watch in (self.logs.drain, self._heartbeat):
                tasks.start_soon(watch, process)
            tasks.start_soon(self.steering.keep_mode)
            tasks.start_soon(self._session.tell_held)
            self._process = process
            try:
                ending = await self._work(process, peer)
            except KandevError as error:
                ending = self._ending or failed(error)
            finally:
                await self._finish(process, peer)
                tasks.cancel_scope.cancel()
        return ending

    def _peer_of(self, process: Process) -> Peer:
        session, crew, left = self._session, self._crew, self._launch.left
        limits: dict[str, int] = {
            "line_limit_bytes": crew.settings.line_limit_bytes,
            "fault_limit": crew.settings.fault_limit_lines,
        }
        if not (process.adoptable and session.adoptable):
            return new_peer(crew.tally, process, session, **limits)
        self._wire.keep(None if left is None else left.wire)
        peer = new_surviving_peer(
            crew.tally, process, session, **limits, journal=crew.journal, wire=self._wire, left=left
        )
        if left is not None:
            session.go_on(peer, left)
            self._record.go_on(left)
        return peer

    async def _hear(self, peer: Peer) -> None:
        await peer.run()
        self._wake.set()

    async def _work(self, process: Process, peer: Peer) -> Ending:
        """Open the session and run the turns; how the run ended."""
        left = self._launch.left
        if left is not None:
            await self._go_on(peer, left)
        else:
            await self._record.write(**_found_by(process))
            if not await self._open(peer):
                return await self._verdict(peer)
            self._launching.end()
        while True:
            self._wake = anyio.Event()
            if self._ending is not None or (
                peer.ended.is_set() and not (self._session.unplayed and self.prompts.waiting)
            ):
                return await self._verdict(peer)
            ready = bool(self.prompts.waiting) and not self.login.holds
            if ready and self._turning.rest_s <= 0:
                await self._turning.next(peer)
            else:
                with anyio.move_on_after(self._turning.rest_s if ready else None):
                    await self._wake.wait()

    async def _go_on(self, peer: Peer, left: Left) -> None:
        """With what the host had begun that died; `known` is set once all that it had recorded is known again."""
        self.logs.note("info", TAKEN_OVER)
        logger.info("Agent %s taken over: %s", self.agent.agent_type, TAKEN_OVER)
        await self._record.write(activity="idle" if left.turn is None else "prompting")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell_known, peer, left.wire.cancelled)
            if left.turn is not None:
                await self._turning.go_on(left.turn, peer)
            elif left.ended is not None:
                await self._turning.follow(left.ended)

    async def _tell_known(self, peer: Peer, cancelled: bool) -> None:
        if isinstance(peer, SurvivingPeer):
            await peer.recalled.wait()
        self.known.set()
        if cancelled:
            await self.cancel()

    async def _open(self, peer: Peer) -> bool:
        """False if the run was told to end meanwhile."""
        row: Session | None = None
        failure: KandevError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_opening, tasks.cancel_scope)
            try:
                with tracing.child("open session"):
                    row = await self._session.open(peer, self._launch.spec.cwd)
            except KandevError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise AgentFailed(await self.with_stderr(failure.message), cause_of(failure)) from failure
        if row is not None:
            self._record.acp_session_id = row.acp_session_id
            kept = self._session.turn_over()
            await self._record.write(*kept, status="RUNNING", activity="idle", session_id=row.id)
        return row is not None

    async def _watch_opening(self, opening: anyio.CancelScope) -> None:
        while self._ending is None:
            await self.woken()
        opening.cancel()

    # --- what its turns need of it ----------------------------------------------------------------------------------

    @property
    def ends_as(self) -> Ending | None:
        """How it is to end, once somebody has said so."""
        return self._ending

    def wake(self) -> None:
        self._wake.set()

    async def woken(self) -> None:
        """Returns when there is something new to look at."""
        await self._wake.wait()
        self._wake = anyio.Event()

    async def end_process(self) -> None:
        """End the process as the ending says."""
        await self._end_process(self._ending or Ending("FAILED", None))

    async def with_stderr(self, message: str) -> str:
        """The message and, for a process that is gone, the last lines of what it said on stderr."""
        if self._peer is not None and self._peer.ended.is_set():
            with anyio.move_on_after(STDERR_S):
                await self.logs.drained.wait()
        tail = self.logs.tail()
        return f"{message}\n{tail}" if tail else message

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _verdict(self, peer: Peer) -> Ending:
        if self._ending is not None:
            return self._ending
        told = await self.with_stderr(f"The agent {peer.end_reason or 'ended'}")
        return Ending("FAILED", told, peer.end_failure, go_on=self._turning.interrupted)

    async def _end_process(self, ending: Ending) -> None:
        if self._process is not None:
            grace_s = self._crew.settings.kill_grace_s
            await end_process(self._process, self._session, ending, self._forced, grace_s)

    async def _finish(self, process: Process, peer: Peer) -> None:
        """Whatever happened, the process is gone afterwards, nobody waits for a permission, and the log is stored."""
        with anyio.CancelScope(shield=True):
            await self._crew.broker.cancel_all(self.agent.id, "the agent ended")
            await self._say_stopping()
            await self.end_process()
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
        waiting = await self.prompts.close()
        dropped = () if self._keeps_prompts and ending.keeps_prompts else waiting
        changes = self._record.end(ending, dropped, self.session, exit_code)
        if dropped:
            changes.append(self.prompts.emptied())
        if self._wire.kept:
            changes.append(forgotten(self.agent.id))
        told = (crew.on_end, crew.on_exit)
        self._conclusion = Conclusion(crew.journal, self.agent, ending, changes, *told)
        await self._conclusion.record()

    async def _heartbeat(self, process: Process) -> None:
        while True:
            await anyio.sleep(self._crew.settings.heartbeat_interval_s)
            stats = await process.stats()
            last = self._session.last_update
            self._record.beat(stats.cpu_s, stats.rss_bytes, None if last is None else time.monotonic() - last)


def _found_by(process: Process) -> dict[str, str | None]:
    """What of the row finds the process."""
    found = container_of(process)
    names = {} if found is None else {"container_id": found.id, "container_name": found.name, "image_name": found.image}
    return {"process_ref": process.ref or None, **names}
