"""The prompts that wait for a live agent: seen, moved, changed, taken out, and the rest before each."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.errors import Busy, Conflict
from kandev_host.models import Turn, Usage
from kandev_host.sessions.prompts import QUEUED_PROMPTS
from kandev_host.settings import SessionSettings

pytestmark = pytest.mark.anyio

SLEEP = [{"text": "working"}, {"sleep_s": 600}]


async def busy(world: Any, *waiting: str, script: Any = None) -> tuple[str, list[str]]:
    """An agent in the middle of a turn, and the ids of the prompts that wait for it."""
    agent_id = await world.start(script, prompt=SLEEP)
    await world.until("acp.log")
    return agent_id, [await world.prompt(agent_id, [{"text": text}]) for text in waiting]


async def waiting(world: Any) -> list[tuple[int, str]]:
    rows = (await world.store.find(Turn, [("state", "=", "queued")], order=("position",))).rows
    return [(turn.position, turn.prompt[0]["text"]) for turn in rows]


def said(*texts: str) -> list[tuple[int, str]]:
    """As `waiting` has them."""
    return [(at, f'[{{"text": "{text}"}}]') for at, text in enumerate(texts)]


async def test_prompts_are_listed_moved_changed_and_removed(world: Any) -> None:
    agent_id, (one, two, three) = await busy(world, "one", "two", "three")
    prompts = world.supervisor.live(agent_id).prompts
    await prompts.change(three, position=0)
    assert await waiting(world) == said("three", "one", "two")
    await prompts.change(one, blocks=[{"type": "text", "text": '[{"text": "1"}]'}], position=99)
    assert await waiting(world) == said("three", "two", "1")
    await prompts.remove(two)
    assert await waiting(world) == said("three", "1")
    await world.supervisor.cancel(agent_id)
    await world.until("acp.result", lambda payload: payload["summary"] == "1")
    assert world.texts() == ["working", "three", "1"]


async def test_every_change_is_told_with_all_that_waits(world: Any) -> None:
    agent_id, (one, _) = await busy(world, "one", "two")
    prompts = world.supervisor.live(agent_id).prompts
    await prompts.remove(one)
    told = [[(each["position"], each["text"]) for each in say["prompts"]] for say in world.payloads("queue.updated")]
    assert told[-3:] == [said("one"), said("one", "two"), said("two")]
    assert {say["agent_id"] for say in world.payloads("queue.updated")} == {agent_id}


async def test_a_prompt_that_was_taken_out_is_cancelled(world: Any) -> None:
    agent_id, (one,) = await busy(world, "one")
    await world.supervisor.live(agent_id).prompts.remove(one)
    turn = await world.store.get(Turn, one)
    assert (turn.state, turn.error) == ("cancelled", "Taken out of the queue")


async def test_a_prompt_that_has_begun_is_not_changed(world: Any) -> None:
    agent_id, _ = await busy(world)
    prompts = world.supervisor.live(agent_id).prompts
    running = (await world.turn()).id
    for change in (prompts.remove(running), prompts.change(running, position=0)):
        with pytest.raises(Conflict, match="has begun") as refused:
            await change
        assert refused.value.details["state"] == "running"


async def test_no_more_than_a_hundred_wait(world: Any) -> None:
    agent_id, _ = await busy(world, *map(str, range(QUEUED_PROMPTS)))
    with pytest.raises(Busy, match="100 prompts"):
        await world.prompt(agent_id, "one more")


async def test_prompts_that_come_at_once_each_have_a_place_of_their_own(world: Any) -> None:
    agent_id, _ = await busy(world)
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(world.prompt, agent_id, str(number))
    assert sorted(turn.position for turn in await world.rows(Turn) if turn.state == "queued") == list(range(20))


async def test_what_waits_is_cancelled_when_somebody_stops_the_agent(world: Any) -> None:
    agent_id, ids = await busy(world, "one", "two")
    await world.supervisor.stop(agent_id)
    assert {turn.state for turn in await world.rows(Turn) if turn.id in ids} == {"cancelled"}
    assert world.payloads("queue.updated")[-1]["prompts"] == []


@pytest.mark.parametrize("end", ["shutdown", "crash", "ignored cancel"])
async def test_what_waits_outlives_a_run_that_nobody_stopped(impatient_world: Any, end: str) -> None:
    world = impatient_world
    agent_id, _ = await busy(world, "one", "two", script={"ignore_cancel": end == "ignored cancel"})
    if end == "shutdown":
        await world.supervisor.shutdown()
    elif end == "crash":
        await world.supervisor.live(agent_id)._process.kill()
    else:
        await world.supervisor.cancel(agent_id)
    await world.ended(agent_id)
    assert await waiting(world) == said("one", "two")


async def test_somebody_who_stops_an_agent_that_is_ending_cancels_what_waits(world: Any) -> None:
    agent_id, _ = await busy(world, "one", script={"ignore_term": True, "ignore_eof": True})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.supervisor.shutdown)
        await world.until("acp.status", lambda payload: payload["activity"] == "stopping")
        await world.supervisor.stop(agent_id)
    assert await waiting(world) == []


@pytest.mark.parametrize("dies", [False, True])
async def test_a_run_that_an_interrupt_ends_says_that_another_is_to_go_on(impatient_world: Any, dies: bool) -> None:
    """It ignores the cancel, or it ends itself."""
    world = impatient_world
    endings: list[Any] = []

    async def on_end(_agent: Any, ending: Any, _changes: Any) -> bool:
        endings.append(ending)
        return False

    world.supervisor.on_end = on_end
    agent_id = await world.start({"ignore_cancel": True}, prompt=[{"text": "no"}, {"hang": True}])
    await world.until("acp.log")
    await world.prompt(agent_id, "urgent", mode="interrupt")
    if dies:
        await world.supervisor.live(agent_id)._process.kill()
    await world.ended(agent_id)
    assert [(ending.status, ending.go_on) for ending in endings] == [("FAILED", True)]
    assert [text for _, text in await waiting(world)] == ["urgent"]


async def test_a_cancel_alone_asks_for_no_run_to_go_on(world: Any) -> None:
    endings: list[Any] = []

    async def on_end(_agent: Any, ending: Any, _changes: Any) -> bool:
        endings.append(ending)
        return False

    world.supervisor.on_end = on_end
    agent_id, _ = await busy(world, "one")
    await world.supervisor.cancel(agent_id)
    await world.until("acp.result", lambda payload: payload["summary"] == "one")
    await world.supervisor.stop(agent_id)
    assert [ending.go_on for ending in endings] == [False]


def late_cost(amount: float) -> list[Any]:
    update = {"sessionUpdate": "usage_update", "used": 1, "size": 9, "cost": {"amount": amount, "currency": "USD"}}
    return [{"text": "one"}, {"after": [{"sleep_s": 0.05}, {"update": update}, {"text": "late"}]}]


async def test_late_cost_is_not_the_next_turns(open_world: Any) -> None:
    """Nor is a late chunk, although the next prompt waits already: the host rests before it."""
    world = await open_world(SessionSettings(settle_s=2.0))
    agent_id = await world.start(prompt=late_cost(0.5))
    second = await world.prompt(agent_id, [{"text": "two"}])
    await world.until("acp.result", lambda payload: payload["summary"] == "two")
    costs = {row.turn_id == second: row.cost for row in await world.rows(Usage)}
    assert costs == {False: "0.5", True: None}
    (late,) = [log for log in world.payloads("acp.log") if log["message"] == "late"]
    assert late["turn_id"] is None


async def test_a_rest_ends_with_the_run(open_world: Any) -> None:
    world = await open_world(SessionSettings(settle_s=60.0))
    agent_id = await world.start(prompt=[{"text": "one"}])
    await world.prompt(agent_id, "two")
    await world.until("acp.result")
    agent = await world.supervisor.stop(agent_id)
    assert agent.status == "STOPPED"
