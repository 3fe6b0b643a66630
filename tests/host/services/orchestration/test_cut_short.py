"""P8: a dispatcher may end at any point, and so may its host: no task is lost, and none runs twice."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Coroutine, Generator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.models import LIVE_STATUSES, AgentInstance, QueueEntry, Task

pytestmark = pytest.mark.anyio

STEPS_LIMIT = 500


class Steps(Awaitable[Any]):
    """A coroutine driven step by step; `at` is called before each wait of it, with its number from 1."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: Any) -> None:
        self._work = work
        self._at = at
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        try:
            waits = next(inner)
            while True:
                self.count += 1
                self._at(self.count)
                try:
                    answer = yield waits
                except BaseException as error:
                    waits = inner.throw(error)
                else:
                    waits = inner.send(answer)
        except StopIteration as done:
            return done.value


async def cut_at(work: Coroutine[Any, Any, Any], number: int) -> bool:
    """Cancel it at its nth wait. False if it came to its end before."""
    with anyio.CancelScope() as scope:
        steps = Steps(work, lambda count: scope.cancel() if count == number else None)
        await steps
    return steps.count >= number


async def live_runs(floor: Any, task: Task) -> list[AgentInstance]:
    return [run for run in await floor.runs(task) if run.status in LIVE_STATUSES]


async def test_p8_a_dispatcher_killed_at_any_await_leaves_exactly_one_live_attempt(open_floor: Any) -> None:
    """At the nth await of a look that settles, claims and starts; a new dispatcher then finds what is to be done."""
    async with open_floor(max_agents=STEPS_LIMIT) as floor:
        number, cut = 0, True
        while cut:
            number += 1
            assert number < STEPS_LIMIT
            task = await floor.task()
            floor.house.dispatcher.mark(task.id)
            cut = await cut_at(floor.house.dispatcher.round(), number)
            async with floor.dispatching():
                await floor.looked()
                live = await live_runs(floor, task)
                entry: QueueEntry = await floor.entry(task)
                row = await floor.row(task)
            assert [run.attempt for run in await floor.runs(task)] == [1], f"cut at await {number}"
            assert [run.id for run in live] == [entry.agent_id] == [row.assigned_agent_id]
            assert (entry.state, entry.fence, row.state) == ("running", task.version + 1, "IN_PROGRESS")
            assert floor.house.agents.alive(live[0].id)
            await floor.house.agents.end(live[0].id, "enough", force=True)
    assert number > 10, "the look had hardly any awaits to be cut at"


async def test_p8_p9_a_host_that_dies_at_any_await_of_a_start_is_followed_by_exactly_one_live_attempt(
    open_floor: Any, tmp_path: Path
) -> None:
    """The data as they are on the disk at each await are what the next host starts from, once for each state."""
    copies: dict[int, Path] = {}

    async with open_floor() as floor:
        task = await floor.task()
        floor.house.dispatcher.mark(task.id)

        def copy(_: int) -> None:
            head = floor.house.journal.state.head
            if head not in copies:
                copies[head] = tmp_path / f"copy-{len(copies)}"
                shutil.copytree(tmp_path / "data", copies[head], ignore=shutil.ignore_patterns("workspaces", "uids"))

        await Steps(floor.house.dispatcher.round(), copy)
        copies[-1] = tmp_path / "copy-last"
        shutil.copytree(tmp_path / "data", copies[-1], ignore=shutil.ignore_patterns("workspaces", "uids"))
    states = set()
    for folder in copies.values():
        async with open_floor(data=folder) as floor:
            entry = await floor.entry(task)
            states.add(None if entry is None else entry.state)
            await floor.house.recovery.reconcile()
            async with floor.dispatching():
                await floor.run_became(task, 1, status="STARTING")
                assert len(await live_runs(floor, task)) == 1
    assert states == {None, "waiting", "running"}


async def test_p8_two_dispatchers_on_one_store_start_a_task_once(open_floor: Any) -> None:
    async with open_floor() as floor:
        task = await floor.task()
        async with anyio.create_task_group() as group:
            for _ in range(2):
                floor.house.dispatcher.mark(task.id)
                group.start_soon(floor.house.dispatcher.round)
        assert len(await floor.runs(task)) == 1


async def test_p8_whoever_saw_an_entry_that_left_the_queue_claims_nothing_of_the_next_one(floor: Any) -> None:
    """Each entry of a task has a fence of its own, also one that comes in just where another was."""
    from kandev_host.errors import Conflict
    from kandev_host.interfaces import Put
    from kandev_host.services.orchestration.lease import taken, unchanged

    task = await floor.task(agent_type="missing")
    fences = []
    async with floor.dispatching():
        seen = await floor.entry(task)
        for state in ("BLOCKED", "TODO", "COMPLETED", "TODO"):
            await floor.set_state(task, state)
            await floor.looked()
            entry = await floor.entry(task)
            assert (entry is not None) == (state == "TODO")
            if entry is not None:
                fences.append(entry.fence)
                with pytest.raises(Conflict):
                    await floor.house.journal.record(Put(seen), expect=unchanged(seen, taken(task.id)))
    assert sorted({seen.fence, *fences}) == [seen.fence, *fences]


async def test_a_late_conclusion_of_an_older_run_changes_nothing(open_floor: Any, clock: Any) -> None:
    """Fencing: the run before is dead, its task runs again; what it says now is not heard."""
    async with open_floor(clock=clock) as floor:
        task = await floor.scripted({"exit": 3})
        async with floor.dispatching():
            older = await floor.run_became(task, 1, status="FAILED")
            await floor.looked()
            clock.advance(1.1)
            await floor.run_became(task, 2, status="FAILED")
            await floor.looked()
            before = await floor.row(task), await floor.entry(task)
            conclusions = floor.house.supervisor
            assert not await conclusions.on_end(older, _ending(), ())
            await conclusions.on_exit(older, "late")
            assert (await floor.row(task), await floor.entry(task)) == before


async def test_a_late_conclusion_is_refused_by_the_store_itself(floor: Any) -> None:
    """Were its run not asked about before, the preconditions of its commit would undo it."""
    from kandev_host.errors import Conflict
    from kandev_host.interfaces import Put
    from kandev_host.services.orchestration.lease import holding, release

    task = await floor.task()
    async with floor.dispatching():
        agent = await floor.run_became(task, activity="prompting")
        entry = await floor.entry(task)
        older = AgentInstance(task_id=task.id, agent_type="demo", runtime="bwrap")
        with pytest.raises(Conflict) as caught:
            await floor.house.journal.record(*release(entry), expect=holding(older, entry))
        assert caught.value.details["state"] == "fenced"
        assert await floor.entry(task) == entry
        await floor.house.journal.record(Put(entry), expect=holding(agent, entry))


def _ending() -> Any:
    from kandev_host.sessions.ending import Ending

    return Ending("FAILED", "late", "crash")
