"""Subscriptions: live events, replays without gap or duplicate, and slow clients."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest

from kandev_host.client import Client, ClientError
from kandev_host.events import event
from kandev_host.gateway.subscriptions import Subscriptions

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0


async def seqs(wire: Any, until: int) -> list[int]:
    """The seqs of notifications, in the order in which they came, up to this one."""
    found: list[int] = []
    while not found or found[-1] != until:
        message = await wire.message()
        if message["type"] == "notification":
            found.append(message["seq"])
    return found


async def test_a_live_event_arrives_as_it_was_recorded(house: Any, wire: Any) -> None:
    reply = (await wire.ask("task.subscribe", {"task_id": "t1"}))["payload"]
    assert reply == {"journal_id": "journal-1", "seq": 0, "topics": ["task:t1"]}
    await house.record(1)
    message = await wire.message()
    assert (message["type"], message["action"], message["seq"]) == ("notification", "acp.log", 1)
    assert message["payload"] == {"pad": ""}
    assert message["id"] == house.store.kept[0].id
    assert message["timestamp"].endswith("Z")


async def test_a_transient_event_has_no_seq(house: Any, wire: Any) -> None:
    await wire.ask("events.subscribe", {})
    house.journal.publish_transient(event("acp.heartbeat", {}, task_id="t1"))
    assert "seq" not in await wire.message()


async def test_an_event_on_two_topics_comes_once(house: Any, wire: Any) -> None:
    await wire.ask("events.subscribe", {"topics": ["task:t1", "board:b1", "*"]})
    await house.record(3)
    assert await seqs(wire, 4) == [1, 2, 3, 4]


async def test_an_unsubscribed_topic_is_silent(house: Any, wire: Any) -> None:
    await wire.ask("events.subscribe", {"topics": ["task:t1"]})
    assert (await wire.ask("task.unsubscribe", {"task_id": "t1"}))["payload"] == {"topics": []}
    await house.record(3)
    assert (await wire.ask("health.check"))["type"] == "response"


async def test_an_unknown_task_is_not_found(wire: Any) -> None:
    for action, payload in (
        ("task.subscribe", {"task_id": "t9"}),
        ("events.subscribe", {"topics": ["task:t9"]}),
    ):
        assert (await wire.ask(action, payload))["payload"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("topic", ["", "tasks", "task:", "task: x", "user:1", "**", "task:t1 ", "TASK:t1"])
async def test_a_wrong_topic_is_named(wire: Any, topic: str) -> None:
    error = (await wire.ask("events.subscribe", {"topics": ["*", topic]}))["payload"]
    assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"field": "topics[1]"})


async def test_the_response_comes_before_the_replay_and_the_replay_before_live(house: Any, wire: Any) -> None:
    await house.record(500)
    await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 100})
    reply = await wire.message()
    assert (reply["type"], reply["payload"]["seq"]) == ("response", 501)
    assert await seqs(wire, 500) == list(range(101, 501))
    await house.record(1)
    assert await seqs(wire, 502) == [502]


async def test_a_replay_of_large_events_misses_none(house: Any, wire: Any) -> None:
    """A page ends where it is full, be that by their number or by their size."""
    await house.record(7, size=1 << 20)
    await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 1})
    assert (await wire.message())["type"] == "response"
    assert await seqs(wire, 7) == list(range(2, 8))


@pytest.mark.parametrize(
    ("payload", "oldest"),
    [({"after_seq": 5}, 1), ({"after_seq": 1, "journal_id": "another"}, 1), ({"after_seq": 0}, 3)],
)
async def test_what_cannot_be_replayed_asks_for_a_resync(
    house: Any, wire: Any, payload: dict[str, Any], oldest: int
) -> None:
    await house.record(3)
    house.journal._oldest = oldest
    error = (await wire.ask("task.subscribe", {"task_id": "t1", **payload}))["payload"]
    assert (error["code"], error["details"]["resync_required"]) == ("CONFLICT", True)
    assert error["details"]["journal_id"] == "journal-1"


async def test_the_journal_id_alone_is_checked_too(wire: Any) -> None:
    error = (await wire.ask("events.subscribe", {"journal_id": "another"}))["payload"]
    assert error["details"]["resync_required"] is True


async def test_a_replay_under_load_has_no_gap_and_no_duplicate(house: Any, open_wire: Any) -> None:
    rng = random.Random(2)
    await house.record(300)

    async def during_a_page() -> None:
        for _ in range(rng.randrange(0, 4)):
            await house.record(rng.randrange(0, 30))

    results: dict[int, list[int]] = {}

    async def follow(first: int) -> None:
        async with open_wire(house) as wire:
            await wire.request("events.subscribe", {"topics": ["*"], "after_seq": first})
            results[first] = []
            while (message := await wire.message())["action"] != "board.deleted":
                if message["type"] == "notification":
                    results[first].append(message["seq"])

    house.store.on_events = during_a_page
    async with anyio.create_task_group() as tasks:
        for first in (0, 1, 150, 299, 300):
            tasks.start_soon(follow, first)
        for _ in range(200):
            await house.record(rng.randrange(0, 10))
        (last,) = await house.journal.record(event("board.deleted", {}))
    assert results == {first: list(range(first + 1, last)) for first in results}


async def test_what_a_live_topic_delivered_is_not_replayed_again(house: Any, wire: Any) -> None:
    await house.record(10)
    await wire.ask("events.subscribe", {"topics": ["board:b1"]})
    await house.record(10)
    assert await seqs(wire, 21) == list(range(12, 22))
    await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 5})
    assert await seqs(wire, 10) == list(range(6, 11))
    await house.record(1)
    assert await seqs(wire, 23) == [23]


async def test_a_second_replay_of_a_topic_starts_over(house: Any, wire: Any) -> None:
    await house.record(5)
    for _ in range(2):
        await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 0})
        assert (await wire.message())["type"] == "response"
        assert await seqs(wire, 5) == [1, 2, 3, 4, 5]
    await house.record(1)
    assert await seqs(wire, 7) == [7]


async def test_unsubscribing_ends_a_replay(house: Any, wire: Any) -> None:
    await house.record(1000)
    gate = anyio.Event()
    entered = anyio.Event()

    async def hold() -> None:
        entered.set()
        await gate.wait()

    house.store.on_events = hold
    await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 0}, id="sub")
    await entered.wait()
    await wire.request("task.unsubscribe", {"task_id": "t1"}, id="unsub")
    await wire.ask("health.check", id="x")
    gate.set()
    seen = []
    while True:
        message = await wire.message()
        if message["id"] == "unsub":
            break
        seen.append(message)
    assert len([each for each in seen if each["type"] == "notification"]) < 1000
    await house.record(2)
    assert (await wire.ask("health.check", id="last"))["id"] == "last"


async def test_a_failing_replay_ends_the_socket(house: Any, wire: Any) -> None:
    async def fail() -> None:
        raise OSError("the disk is gone")

    await house.record(3)
    house.store.on_events = fail
    await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 0})
    assert (await wire.closed())[0] == 1011


async def test_a_replay_larger_than_the_outbox_waits_for_the_client(open_house: Any, open_wire: Any) -> None:
    async with open_house(outbound_limit_messages=20, outbound_limit_bytes=20_000) as house, open_wire(house) as wire:
        await house.record(2000, size=2000)
        await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 0})
        assert await seqs(wire, 2000) == list(range(1, 2001))


async def test_an_answer_larger_than_the_outbox_arrives(wire: Any) -> None:
    assert len((await wire.ask("echo.big"))["payload"]["text"]) == 6 << 20


async def gather(client: Client, seqs: list[int | None]) -> None:
    async for notification in client.notifications():
        seqs.append(notification.seq)  # noqa: PERF401 - what came before the error counts


@pytest.fixture
def was_cut(caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    """Has the host cut a slow client, as its log says?"""
    caplog.set_level(logging.INFO, "kandev_host.gateway")
    return lambda: "A slow client was cut" in caplog.text


async def test_a_slow_client_is_cut_and_misses_nothing_when_it_returns(
    open_house: Any, open_wire: Any, was_cut: Callable[[], bool]
) -> None:
    async with open_house() as house:
        async with house.client() as live, open_wire(house) as slow:
            await live.subscribe("*")
            await slow.ask("events.subscribe", {"topics": ["task:t1"], "after_seq": 0})
            while not was_cut():
                await house.record(50, size=4000)
                await live.call("health.check")
            got: list[int] = []
            while (message := await slow.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                got.append(msgspec.json.decode(message.data)["seq"])
            assert slow.socket.close_code == 4408
            assert str(message.extra).endswith(f"seq={got[-1]}")
        async with open_wire(house) as back:
            await back.request("task.subscribe", {"task_id": "t1", "after_seq": got[-1]})
            wanted = [kept.seq for kept in house.store.kept if kept.task_id == "t1"]
            got += await seqs(back, wanted[-1])
            assert got == wanted


async def test_a_stalled_replay_is_cut_by_its_deadline(open_house: Any, open_wire: Any) -> None:
    async with open_house(slow_client_timeout_s=0.2) as house, open_wire(house) as slow:
        await house.record(4000, size=4000)
        await slow.request("task.subscribe", {"task_id": "t1", "after_seq": 0})
        while house.gateway.sockets:
            await anyio.lowlevel.checkpoint()


async def test_the_client_reports_4408_with_the_seq_to_resume_from(
    open_house: Any, was_cut: Callable[[], bool]
) -> None:
    small = {"outbound_limit_messages": 10, "outbound_limit_bytes": 10_000}
    async with open_house(**small) as house, house.client(buffer=1) as client:
        await client.subscribe("task:t1")
        while not was_cut():
            await house.record(50, size=4000)
        got: list[int | None] = []
        with pytest.raises(ClientError) as caught:
            await gather(client, got)
        assert caught.value.details["close_code"] == 4408
        assert caught.value.details["seq"] == got[-1] == client.resume_seq


async def test_a_topic_that_starts_over_under_load_stays_in_order(house: Any, wire: Any) -> None:
    async def during_a_page() -> None:
        house.store.on_events = None
        await house.record(20)

    await wire.ask("task.subscribe", {"task_id": "t1"})
    await house.record(10)
    await seqs(wire, 10)
    house.store.on_events = during_a_page
    await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 0})
    assert (await wire.message())["type"] == "response"
    assert await seqs(wire, 31) == [*range(1, 11), *range(12, 32)]


async def test_a_client_cut_during_a_replay_is_told_to_resume_from_the_replay(
    open_house: Any, open_wire: Any, was_cut: Callable[[], bool]
) -> None:
    async with open_house() as house, open_wire(house) as slow:
        await house.record(10)
        await slow.ask("events.subscribe", {"topics": ["board:b2"]})
        paused = anyio.Event()
        house.store.on_events = paused.wait
        await slow.request("task.subscribe", {"task_id": "t1", "after_seq": 3})
        while not was_cut():
            await house.journal.record(event("board.updated", {"pad": "x" * 100_000}, board_id="b2"))
        while (message := await slow.socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        paused.set()
        assert str(message.extra).endswith(" seq=3")


async def test_nothing_is_followed_on_a_closed_socket(house: Any) -> None:
    subscriptions = Subscriptions(house.store, house.bus, house.journal, NotImplemented, house.audiences)
    subscriptions.follow("task:t1")
    subscriptions.close()
    subscriptions.follow("task:t2")
    assert (subscriptions.topics, dict(house.bus.members)) == ([], {})


async def test_p5_a_replay_whose_events_are_removed_meanwhile_is_cut_and_says_so(house: Any, open_wire: Any) -> None:
    await house.record(1000)

    async def first_page() -> None:
        house.store.on_events = second_page

    async def second_page() -> None:
        house.store.on_events = None
        house.store.kept_from = 900
        with anyio.fail_after(DEADLINE_S):
            while house.journal.state.oldest < 900:
                await anyio.sleep(0.005)

    house.store.on_events = first_page
    async with open_wire(house) as wire:
        await wire.request("task.subscribe", {"task_id": "t1", "after_seq": 0})
        code, reason = await wire.closed()
    assert code == 4408
    assert "not kept any more" in reason
    async with open_wire(house) as wire:
        error = (await wire.ask("task.subscribe", {"task_id": "t1", "after_seq": 200}))["payload"]
    assert (error["code"], error["details"]["resync_required"], error["details"]["oldest"]) == ("CONFLICT", True, 900)
