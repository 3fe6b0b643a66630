"""The loop that starts what may start. It sleeps until something happens, or until something becomes due."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import islice
from types import TracebackType

import anyio
import anyio.abc
import msgspec

from kandev_host import tracing
from kandev_host.errors import Busy, Conflict, KandevError, NotFound, StorageFull
from kandev_host.events import Event
from kandev_host.interfaces import Bus, Store, Subscription
from kandev_host.log_ids import bound
from kandev_host.models import LIVE_STATUSES, Activity, AgentStatus, QueueEntry
from kandev_host.protocol.actions.agents import AgentLaunch
from kandev_host.services.agents import AgentService
from kandev_host.services.launcher import failure_of
from kandev_host.services.orchestration.clock import Clock
from kandev_host.services.orchestration.conclusions import Conclusions
from kandev_host.services.orchestration.look import Look, Looks
from kandev_host.services.orchestration.settling import Settler
from kandev_host.services.orchestration.sweep import Sweep
from kandev_host.services.starts import Outrun
from kandev_host.services.users import HOST

log = logging.getLogger(__name__)

RETRY_S = 1.0
RECHECK_S = 60.0
PAGE = 200
AT_ONCE = 32
CHANGED_LIMIT = 10_000
TASKS = frozenset({"task.updated", "task.state_changed", "task.deleted", "board.deleted"})


class _Agent(msgspec.Struct):
    status: AgentStatus
    activity: Activity | None


class _AgentUpdated(msgspec.Struct):
    agent: _Agent


class _Task(msgspec.Struct):
    agent_type: str | None


class _TaskCreated(msgspec.Struct):
    task: _Task


_updated = msgspec.json.Decoder(_AgentUpdated)
_created = msgspec.json.Decoder(_TaskCreated)


class Dispatcher:
    """Use as an async context manager, after the recovery: it starts agents from then on, and none once it is left.

    It hears of changes from the bus, and does not trust it: what is to be done is read from the rows, and every minute
    all of them are looked at. So a dispatcher may end at any point, and the next one goes on (reliability: P8).
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        agents: AgentService,
        *,
        looks: Looks,
        settler: Settler,
        conclusions: Conclusions,
        sweep: Sweep,
        clock: Clock,
    ) -> None:
        self._store = store
        self._bus = bus
        self._agents = agents
        self._looks = looks
        self._settler = settler
        self._conclusions = conclusions
        self._sweep = sweep
        self._clock = clock
        self._changed: set[str] = set()
        self._again: set[str] = set()
        self._woken = anyio.Event()
        self._group: anyio.abc.TaskGroup | None = None
        self._subscription: Subscription | None = None
        self._begun = 0
        self._done = 0
        self._round_done = anyio.Event()

    async def __aenter__(self) -> Dispatcher:
        self._sweep.wanted = True
        self._subscription = self._bus.subscribe(["*"], self._hear)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._run, name="dispatcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        if self._subscription is not None:
            self._subscription.close()
        if group is not None:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)

    # --- what wakes it ------------------------------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        if event.action in TASKS:
            self.mark(event.task_id)
        elif event.action == "task.created":
            # Without a type a new task has nothing to do with the queue, and boards may be filled by the thousand.
            if _created.decode(event.payload).task.agent_type is not None:
                self.mark(event.task_id)
        elif event.action == "agent.updated":
            agent = _updated.decode(event.payload).agent
            if agent.status not in LIVE_STATUSES or agent.activity == "idle":
                self.mark(event.task_id)

    def mark(self, task_id: str | None = None) -> None:
        """Look at the queue soon, and at this task."""
        if task_id is not None and len(self._changed) < CHANGED_LIMIT:
            self._changed.add(task_id)
        elif task_id is not None:
            self._sweep.wanted = True
        self._woken.set()

    async def considered(self, timeout_s: float) -> None:
        """Return once a look at the queue that begins after now has ended, or after `timeout_s`."""
        if self._group is None:
            return
        wanted = self._begun + 1
        self.mark()
        with anyio.move_on_after(timeout_s):
            while self._done < wanted:
                await self._round_done.wait()

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._woken = anyio.Event()  # before the look: what happens during it is not missed
            self._begun += 1
            began = self._clock.monotonic()
            try:
                due = await self.round()
            except KandevError as error:  # the store is locked or full, say: nothing is lost, it is tried again
                log.error("the queue waits %g s: %s", RETRY_S, error.message)
                due = self._in(RETRY_S)
            except Exception:
                log.exception("the queue could not be looked at")
                due = self._in(RETRY_S)
            self._done = self._begun
            self._round_done.set()
            self._round_done = anyio.Event()
            # As long a rest as the look took: with ten thousand entries that wait, events come faster than looks end.
            await anyio.sleep(self._clock.monotonic() - began)
            await self._clock.wait(self._woken, max(due - self._clock.monotonic(), 0.0))
            self._changed |= self._again
            self._again.clear()

    def _in(self, seconds: float) -> float:
        """When that is, on the monotonic clock."""
        return self._clock.monotonic() + seconds

    async def round(self) -> float:
        """Settle what changed, start what may start; when something becomes due by itself, on the monotonic clock."""
        changed, self._changed = self._changed, set()
        await self._settle(changed)
        if self._sweep.due <= self._clock.monotonic():
            async with aclosing(self._sweep.run()) as pages:
                async for page in pages:
                    await self._settle(page)
        due = min(await self._start_all(), self._sweep.due)
        return min(due, self._in(RETRY_S)) if self._again else due

    async def _settle(self, task_ids: Iterable[str]) -> None:
        """Some at a time, since their commits are then written together."""
        waiting = iter(task_ids)
        while chunk := list(islice(waiting, AT_ONCE)):
            async with anyio.create_task_group() as tasks:
                for task_id in chunk:
                    tasks.start_soon(self._settle_one, task_id)

    async def _settle_one(self, task_id: str) -> None:
        try:
            if await self._settler.settle(task_id):
                self._again.add(task_id)
        except (Conflict, NotFound):
            return  # somebody was faster, and there is an event of that
        except KandevError as error:
            log.error("task %s is settled later: %s", task_id, error.message)
            self._again.add(task_id)

    async def _start_all(self) -> float:
        """In the order of the queue; whoever cannot be started keeps nobody behind it from it."""
        due = self._in(RECHECK_S)
        if not await self._store.count(QueueEntry, [("state", "=", "waiting")]):
            return due
        look = await self._looks.take()
        async with aclosing(waiting_pages(self._store)) as pages:
            async for page in pages:
                if not look.free:
                    break
                await look.load(page)
                due = min(due, await self._start_some(page, look))
        return due

    async def _start_some(self, entries: Sequence[QueueEntry], look: Look) -> float:
        due = self._in(RECHECK_S)
        for entry in entries:
            if not look.free:
                break
            waits = await look.waiting_for(entry)
            if waits is None:
                # Of a trace of its own: who queued the task may have done so hours ago.
                span = tracing.begin("start queued", links=tracing.origins(entry.id), kind="consumer")
                with bound(task_id=entry.id), span:
                    await self._start(entry, look)
            elif waits.kind == "backoff":
                due = min(due, self._looks.backoffs.due(entry))
        return due

    async def _start(self, entry: QueueEntry, look: Look) -> None:
        asked = {"task_id": entry.id, "agent_type": entry.agent_type, "runtime": entry.runtime, "preset": entry.preset}
        launch = msgspec.convert(asked, AgentLaunch)
        try:
            async with self._looks.pause.starting:
                look.paused = await self._looks.pause.since() is not None
                if look.paused:
                    return
                _, agent = await self._agents.begin(
                    HOST, launch, orchestrated=True, seen=entry, counted_at=look.counted_at
                )
        except (Busy, StorageFull):
            raise
        except Outrun:
            look.outrun = True
            self._woken.set()
        except KandevError as error:
            tracing.current().fail(error.code)
            if failure_of(error) == "config" and not _faster(error):
                await self._conclusions.refuse(entry, error)
            else:
                log.warning("task %s is not started now: %s", entry.id, error.message)
        else:
            look.used.take(agent.agent_type, entry.board_id)


def _faster(error: KandevError) -> bool:
    """Somebody else took or deleted the task in between: that is no fault of it."""
    return isinstance(error, NotFound) or error.details.get("state") in {"claimed", "deleting", *LIVE_STATUSES}


async def waiting_pages(store: Store) -> AsyncGenerator[list[QueueEntry], None]:
    """The entries that wait, in their order."""
    cursor: str | None = None
    while True:
        page = await store.find(
            QueueEntry, [("state", "=", "waiting")], order=("rank", "id"), limit=PAGE, cursor=cursor
        )
        yield page.rows
        cursor = page.next_cursor
        if cursor is None:
            return
