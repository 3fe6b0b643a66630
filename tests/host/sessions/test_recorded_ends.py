"""Ends that the store does not take at once, and ends that are one commit with what follows (P1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import pytest

from kandev_host.errors import Busy, NotFound, StorageFull, TimedOut, Unavailable
from kandev_host.interfaces import Commit, Put
from kandev_host.models import AgentInstance, Task, Turn
from kandev_host.sessions.supervisor import AgentSupervisor

pytestmark = pytest.mark.anyio

DEADLINE_S = 60


class Refusing:
    """A store that refuses what `refuse` names, as long as that is set."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.refuse: Callable[[Commit], bool] = lambda commit: False
        self.error: Any = Busy("The database is locked")
        self.refused = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Any]:
        answers = []
        for commit in commits:
            if self.refuse(commit):
                self.refused.set()
                answers.append(self.error)
            else:
                answers += await self._store.commit([commit])
        return answers


def puts(commit: Commit, kind: Any, *states: str) -> bool:
    """Does it write such a row in such a state?"""
    rows = [change.row for change in commit.changes if isinstance(change, Put)]
    return any(isinstance(row, kind) and getattr(row, "status", getattr(row, "state", None)) in states for row in rows)


async def test_p1_a_turns_end_that_the_store_refuses_is_tried_again(open_world: Any) -> None:
    world = await open_world(wrap=Refusing)
    world.store.refuse = lambda commit: puts(commit, Turn, "ended")
    agent_id = await world.start(prompt=[{"text": "Done."}])
    with anyio.fail_after(DEADLINE_S):
        await world.store.refused.wait()
    world.store.refuse = lambda commit: False
    await world.until("acp.result")
    assert (await world.turn()).state == "ended"
    assert world.supervisor.live(agent_id).agent.status == "RUNNING"
    assert len(world.payloads("acp.result")) == 1


async def test_p1_a_turns_end_that_the_store_never_took_comes_with_the_end_of_the_run(
    open_world: Any,
) -> None:
    world = await open_world(wrap=Refusing)
    world.store.refuse = lambda commit: puts(commit, Turn, "ended") and not puts(commit, AgentInstance, "STOPPED")
    agent_id = await world.start(prompt=[{"text": "Done."}])
    with anyio.fail_after(DEADLINE_S):
        await world.store.refused.wait()
        agent = await world.supervisor.stop(agent_id, reason="enough")
    assert (agent.status, agent.failure, agent.error_message) == ("STOPPED", None, "enough")
    assert (await world.turn()).state == "ended"
    assert [result["status"] for result in world.payloads("acp.result")] == ["completed"]


async def test_p1_a_turn_begins_when_the_store_takes_that(open_world: Any) -> None:
    world = await open_world(wrap=Refusing)
    world.store.refuse = lambda commit: puts(commit, Turn, "running")
    await world.start(prompt=[{"text": "Done."}])
    with anyio.fail_after(DEADLINE_S):
        await world.store.refused.wait()
    world.store.refuse = lambda commit: False
    await world.until("acp.result")
    assert (await world.turn()).state == "ended"


async def test_p1_a_turn_whose_beginning_the_store_refused_is_not_left_open(open_world: Any) -> None:
    world = await open_world(wrap=Refusing)
    world.store.refuse = lambda commit: puts(commit, Turn, "running")
    agent_id = await world.start(prompt=[{"text": "never said"}])
    with anyio.fail_after(DEADLINE_S):
        await world.store.refused.wait()
        agent = await world.supervisor.stop(agent_id, reason="enough")
    assert (agent.status, agent.failure) == ("STOPPED", None)
    assert (await world.turn()).state == "failed"


@pytest.mark.parametrize("error", [Busy("The database is locked"), StorageFull("The disk is full")])
async def test_p1_the_end_of_a_run_is_recorded_as_soon_as_the_store_takes_it(
    open_world: Any, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    monkeypatch.setattr("kandev_host.sessions.conclusion.RECORD_S", 0.1)
    world = await open_world(wrap=Refusing)
    exits: list[str | None] = []
    told = anyio.Event()

    async def on_exit(agent: AgentInstance, _reason: str | None) -> None:
        exits.append(agent.failure)
        told.set()

    world.supervisor.on_exit = on_exit
    world.store.error = error
    world.store.refuse = lambda commit: puts(commit, AgentInstance, "FAILED")
    agent_id = await world.start(prompt=[{"exit": 9}])
    assert (await world.ended(agent_id)).status == "RUNNING"
    assert world.supervisor.live(agent_id) is None
    assert world.supervisor.unrecorded(agent_id)
    world.store.refuse = lambda commit: False
    await world.until("agent.updated", lambda payload: payload["agent"]["status"] == "FAILED")
    assert (await world.store.get(AgentInstance, agent_id)).failure == "crash"
    assert (await world.turn()).state == "failed"
    with anyio.fail_after(DEADLINE_S):
        await told.wait()
    assert exits == ["crash"]
    await anyio.lowlevel.checkpoint()
    assert not world.supervisor.unrecorded(agent_id)


async def test_a_host_can_end_while_the_store_refuses_the_end_of_a_run(
    open_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kandev_host.sessions.conclusion.RECORD_S", 0.1)
    world = await open_world(wrap=Refusing)
    world.store.refuse = lambda commit: puts(commit, AgentInstance, "FAILED")
    async with AgentSupervisor(world.journal, world.broker, world.settings) as supervisor:
        world.supervisor = supervisor
        await world.ended(await world.start(prompt=[{"exit": 9}]))
        with anyio.fail_after(DEADLINE_S):
            await supervisor.shutdown()


async def test_the_end_of_a_run_and_what_it_means_for_its_task_can_be_one_commit(world: Any) -> None:
    """No client sees the one without the other."""

    async def on_end(agent: AgentInstance, ending: Any, changes: Sequence[Any]) -> bool:
        task = await world.store.get(Task, agent.task_id)
        assert (agent.status, ending.failure) == ("FAILED", "crash")
        await world.journal.record(*changes, Put(msgspec.structs.replace(task, state="FAILED")))
        return True

    world.supervisor.on_end = on_end
    agent_id = await world.start(prompt=[{"exit": 9}])
    await world.until("agent.updated", lambda payload: payload["agent"]["status"] == "FAILED")
    assert (await world.store.get(Task, world.task.id)).state == "FAILED"
    assert (await world.ended(agent_id)).status == "FAILED"


@pytest.mark.parametrize("error", [Busy("locked"), TimedOut("slow"), Unavailable("an I/O error")])
async def test_what_follows_an_end_is_asked_for_again_until_the_store_can_say_it(world: Any, error: Any) -> None:
    """Written alone before that, the end would be judged as if nobody had asked for it."""
    asked: list[str] = []

    async def on_end(agent: AgentInstance, ending: Any, changes: Sequence[Any]) -> bool:
        asked.append(agent.status)
        if len(asked) == 1:
            raise error
        await world.journal.record(*changes)
        return True

    world.supervisor.on_end = on_end
    agent_id = await world.start(prompt=[{"exit": 9}])
    await world.until("agent.updated", lambda payload: payload["agent"]["status"] == "FAILED")
    assert (await world.ended(agent_id)).status == "FAILED"
    assert asked == ["FAILED", "FAILED"]


async def test_an_end_that_is_not_recorded_in_time_holds_up_nobody(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it waits for meanwhile: a lock that others hold, say, while the store is locked for each of them."""
    monkeypatch.setattr("kandev_host.sessions.conclusion.RECORD_S", 0.1)
    waits = anyio.Event()

    async def on_end(agent: AgentInstance, ending: Any, changes: Sequence[Any]) -> bool:
        await waits.wait()
        await world.journal.record(*changes)
        return True

    world.supervisor.on_end = on_end
    agent_id = await world.start(prompt=[{"exit": 9}])
    assert (await world.ended(agent_id)).status == "RUNNING"
    assert world.supervisor.unrecorded(agent_id)
    waits.set()
    await world.until("agent.updated", lambda payload: payload["agent"]["status"] == "FAILED")


@pytest.mark.parametrize("error", [None, NotFound("task", "x")])
async def test_a_run_ends_also_when_nothing_follows_or_that_fails(world: Any, error: Any) -> None:
    async def on_end(agent: AgentInstance, ending: Any, changes: Sequence[Any]) -> bool:
        if error is not None:
            raise error
        return False

    world.supervisor.on_end = on_end
    agent = await world.ended(await world.start(prompt=[{"exit": 9}]))
    assert (agent.status, agent.failure) == ("FAILED", "crash")


async def test_what_follows_an_end_is_tried_again_when_the_store_was_busy(world: Any) -> None:
    tried: list[str] = []

    async def on_exit(agent: AgentInstance, _reason: str | None) -> None:
        tried.append(agent.status)
        if len(tried) == 1:
            raise Busy("The database is locked")

    world.supervisor.on_exit = on_exit
    agent = await world.ended(await world.start({"start": [{"exit": 3}]}))
    assert (tried, agent.status) == (["FAILED", "FAILED"], "FAILED")
    assert len([each for each in world.payloads("acp.error") if each["code"] == "AGENT_FAILED"]) == 1
