"""One request id has one effect and one answer (reliability: P2), over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest

from kandev_host.errors import Busy, Conflict, KandevError, RateLimited, StorageFull, TimedOut, Unavailable
from kandev_host.events import event
from kandev_host.gateway.receipts import Answer, Claim, Memory, Receipts, digest_of
from kandev_host.interfaces import Action, Call, Commit, Principal, Put
from kandev_host.models import LOCAL_USER_ID, Receipt, new_id
from kandev_host.protocol.envelope import Request

pytestmark = pytest.mark.anyio


class Make(msgspec.Struct, forbid_unknown_fields=True):
    name: str = "it"
    more: dict[str, Any] = {}


class Works:
    """Actions that change something, each counting what it did."""

    def __init__(self, house: Any) -> None:
        self.house = house
        self.done: list[str] = []

    def actions(self) -> list[Action[Any]]:
        return [
            Action("made.one", Make, self.make, "made:write"),
            Action("made.other", Make, self.make, "made:write"),
            Action("made.nothing", Make, self.nothing, "made:write"),
            Action("made.followed", Make, self.followed, "made:write"),
            Action("made.named", Make, self.named, "made:write", follows=lambda reply: (f"task:{reply['made']}",)),
            Action("made.otherwise", Make, self.otherwise, "made:write"),
            Action("made.slowly", Make, self.slowly, "made:write"),
            Action("made.refused", Make, self.refused, "made:write"),
            Action("made.broken", Make, self.broken, "made:write"),
            Action("made.half", Make, self.half, "made:write"),
            Action("made.started", Make, self.started, "made:write"),
            Action("made.key", Make, self.key, "made:write", keeps="effect"),
            Action("made.login", Make, self.key, "made:write", keeps="nothing"),
            Action("made.read", Make, self.nothing, "made:read"),
        ]

    async def make(self, _call: Call, request: Make) -> dict[str, Any]:
        self.done.append(request.name)
        await self.house.journal.record(event("test", {}, task_id="made"))
        return {"made": request.name, "number": len(self.done)}

    async def nothing(self, _call: Call, request: Make) -> dict[str, Any]:
        self.done.append(request.name)
        return {"number": len(self.done)}

    async def followed(self, call: Call, request: Make) -> dict[str, Any]:
        call.subscribe("task:made")
        return await self.make(call, request)

    async def named(self, _call: Call, request: Make) -> dict[str, Any]:
        self.done.append(request.name)
        reply = {"made": request.name}
        await self.house.journal.record(event("test", {}), reply=reply)
        return reply

    async def otherwise(self, call: Call, request: Make) -> dict[str, Any]:
        await self.named(call, request)
        raise Conflict("Half way", state="TODO")

    async def slowly(self, call: Call, request: Make) -> dict[str, Any]:
        made = await self.make(call, request)
        self.house.entered.set()
        await self.house.gate.wait()
        return made

    async def refused(self, call: Call, request: Make) -> dict[str, Any]:
        self.done.append(request.name)
        if len(self.done) == 1:
            raise Conflict("Not yet", state="TODO")
        return await self.make(call, request)

    async def broken(self, call: Call, request: Make) -> dict[str, Any]:
        await self.make(call, request)
        raise Conflict("Half way", state="TODO")

    async def half(self, call: Call, request: Make) -> dict[str, Any]:
        """Two commits, of which the store may refuse the second."""
        await self.make(call, request)
        await self.house.journal.record(event("second", {}))
        return {"number": len(self.done)}

    async def started(self, _call: Call, request: Make) -> dict[str, Any]:
        self.done.append(request.name)
        background = asyncio.create_task(self.house.journal.record(event("background", {})))
        await background
        await self.house.journal.record(event("handler", {}))
        return {"number": len(self.done)}

    async def key(self, call: Call, request: Make) -> dict[str, Any]:
        return {**await self.make(call, request), "key": "top-secret"}


@pytest.fixture
async def works(open_house: Any) -> AsyncIterator[Works]:
    made: list[Works] = []

    def actions(house: Any) -> list[Action[Any]]:
        made.append(Works(house))
        return [*made[0].actions(), *house.actions()]

    async with open_house(actions=actions):
        yield made[0]


@pytest.fixture
async def wire(works: Works, open_wire: Any) -> AsyncIterator[Any]:
    async with open_wire(works.house) as opened:
        yield opened


@pytest.fixture
async def other(works: Works, open_wire: Any) -> AsyncIterator[Any]:
    async with open_wire(works.house) as opened:
        yield opened


def receipts(works: Works) -> list[Any]:
    return [row for (kind, _), row in works.house.store.rows.items() if kind is Receipt]


def carried(works: Works) -> list[list[str]]:
    """Of each commit, what it held: the actions of its events, and receipts by whether they have a reply."""
    return [[name_of(change) for change in commit.changes] for commit in works.house.store.commits]


def name_of(change: Any) -> str:
    if isinstance(change, Put) and isinstance(change.row, Receipt):
        return "receipt" if change.row.reply is None else "reply"
    return str(getattr(change, "action", change))


async def test_p2_a_repeated_request_has_one_effect_and_the_same_response(works: Works, wire: Any) -> None:
    id = new_id()
    first = await wire.ask("made.one", {"name": "a"}, id=id)
    again = await wire.ask("made.one", {"name": "a"}, id=id)
    assert (first["type"], first["payload"]) == ("response", {"made": "a", "number": 1})
    assert {**again, "timestamp": ""} == {**first, "timestamp": ""}
    assert works.done == ["a"]


async def test_p2_a_uuid_counts_on_every_connection(works: Works, wire: Any, other: Any) -> None:
    id = new_id()
    first = await wire.ask("made.one", id=id)
    assert (await other.ask("made.one", id=id))["payload"] == first["payload"]
    assert works.done == ["it"]


async def test_p2_a_uuid_counts_after_a_restart(works: Works, wire: Any, open_house: Any, open_wire: Any) -> None:
    id = new_id()
    first = await wire.ask("made.one", id=id)
    later: list[Works] = []

    def actions(house: Any) -> list[Action[Any]]:
        later.append(Works(house))
        return later[0].actions()

    async with open_house(actions=actions, store=works.house.store) as house, open_wire(house) as again:
        assert (await again.ask("made.one", id=id))["payload"] == first["payload"]
        assert (await again.ask("made.one", {"name": "b"}, id=id))["payload"]["code"] == "CONFLICT"
    assert later[0].done == []


async def test_any_other_id_counts_within_its_connection(works: Works, wire: Any, other: Any) -> None:
    await wire.ask("made.one", id="1")
    assert (await wire.ask("made.one", id="1"))["payload"]["number"] == 1
    assert (await other.ask("made.one", id="1"))["payload"]["number"] == 2
    assert receipts(works) == []


@pytest.mark.parametrize("id", ["1", "0198c5a0-0000-7000-8000-000000000001"])
@pytest.mark.parametrize(("action", "payload"), [("made.one", {"name": "b"}), ("made.other", {"name": "a"})])
async def test_the_id_of_another_request_is_a_conflict(
    works: Works, wire: Any, id: str, action: str, payload: dict[str, Any]
) -> None:
    await wire.ask("made.one", {"name": "a"}, id=id)
    assert (await wire.ask(action, payload, id=id))["payload"]["code"] == "CONFLICT"
    assert works.done == ["a"]


async def test_the_same_payload_in_other_words_is_the_same_request(works: Works, wire: Any) -> None:
    frame = '{"id": "x", "type": "request", "action": "made.one", "payload": %s}'
    await wire.send(frame % '{"name": "\\u0061", "more": {"k": 1, "l": 2}}')
    await wire.send(frame % '{ "more": {"l": 2, "k": 1}, "name": "a" }')
    assert (await wire.message())["payload"] == (await wire.message())["payload"] == {"made": "a", "number": 1}


async def test_p2_duplicates_in_flight_wait_for_the_first(works: Works, wire: Any, other: Any) -> None:
    id = new_id()
    await wire.request("made.slowly", id=id)
    await works.house.entered.wait()
    await other.request("made.slowly", id=id)
    await wire.request("made.slowly", id=id)
    assert (await other.ask("health.check", id="h"))["id"] == "h"
    works.house.gate.set()
    answers = [await wire.message(), await wire.message(), await other.message()]
    assert [answer["payload"] for answer in answers] == [{"made": "it", "number": 1}] * 3


async def test_a_duplicate_whose_socket_closes_takes_nothing_from_the_others(
    works: Works, wire: Any, other: Any
) -> None:
    id = new_id()
    await wire.request("made.slowly", id=id)
    await works.house.entered.wait()
    await other.request("made.slowly", id=id)
    await other.ask("health.check", id="h")
    await other.socket.close()
    works.house.gate.set()
    assert (await wire.message())["payload"]["number"] == 1


async def test_the_first_effect_and_the_receipt_are_one_commit_and_the_reply_follows(works: Works, wire: Any) -> None:
    await wire.ask("made.one", id=new_id())
    assert carried(works) == [["test", "receipt"], ["reply"]]


async def test_p2_a_reply_that_is_named_with_the_effect_is_kept_in_its_commit(works: Works, wire: Any) -> None:
    id = new_id()
    first = await wire.ask("made.named", id=id)
    assert carried(works) == [["test", "reply"]]
    (receipt,) = receipts(works)
    assert msgspec.json.decode(receipt.reply) == first["payload"]
    assert receipt.topics == ("task:it",)


async def test_whoever_gets_a_response_follows_what_its_action_says(works: Works, wire: Any, other: Any) -> None:
    id = new_id()
    for socket in (wire, other):
        await socket.ask("made.named", id=id)
    await works.house.record(1, task_id="it")
    for socket in (wire, other):
        assert (await socket.message())["type"] == "notification"


async def test_an_answer_that_is_not_the_reply_that_was_named_replaces_it(works: Works, wire: Any) -> None:
    assert (await wire.ask("made.otherwise", id=new_id()))["payload"]["code"] == "CONFLICT"
    assert carried(works) == [["test", "reply"], ["reply"]]
    assert [receipt.is_error for receipt in receipts(works)] == [True]


async def test_what_a_background_task_commits_carries_no_receipt(works: Works, wire: Any) -> None:
    await wire.ask("made.started", id=new_id())
    assert carried(works) == [["background"], ["handler", "receipt"], ["reply"]]


async def test_p2_what_a_crash_left_unfinished_has_an_unknown_outcome(works: Works, wire: Any) -> None:
    id = new_id()
    await wire.ask("made.one", id=id)
    (receipt,) = receipts(works)
    crashed = new_id()
    torn = msgspec.structs.replace(receipt, id=f"{LOCAL_USER_ID}/{crashed}", reply=None)
    works.house.store.rows[Receipt, torn.id] = torn
    for _ in range(2):
        error = (await wire.ask("made.one", id=crashed))["payload"]
        assert (error["code"], error["details"]) == ("CONFLICT", {"outcome_unknown": True})
    assert works.done == ["it"]


async def test_what_failed_without_effect_may_be_tried_again(works: Works, wire: Any) -> None:
    id = new_id()
    assert (await wire.ask("made.refused", id=id))["payload"]["message"] == "Not yet"
    assert receipts(works) == []
    assert (await wire.ask("made.refused", id=id))["type"] == "response"


async def test_what_failed_after_an_effect_fails_alike_again(works: Works, wire: Any, other: Any) -> None:
    id = new_id()
    first = await wire.ask("made.broken", id=id)
    assert (first["type"], first["payload"]["message"]) == ("error", "Half way")
    assert (await other.ask("made.broken", id=id))["payload"] == first["payload"]
    assert works.done == ["it"]


PASSES = [
    Busy("locked"),
    StorageFull("full"),
    Unavailable("gone"),
    TimedOut("late"),
    RateLimited(1.0),
]


@pytest.mark.parametrize("error", PASSES, ids=lambda error: error.code)
async def test_p2_what_a_passing_error_cut_short_is_told_once_and_then_has_an_unknown_outcome(
    works: Works, wire: Any, other: Any, error: KandevError
) -> None:
    works.house.store.refusing = lambda commit: error if name_of(commit.changes[0]) == "second" else None
    id = new_id()
    first = (await wire.ask("made.half", id=id))["payload"]
    assert (first["code"], first["details"]["outcome_unknown"]) == (error.code, True)
    works.house.store.refusing = lambda _commit: None
    for socket in (wire, other):
        again = (await socket.ask("made.half", id=id))["payload"]
        assert (again["code"], again["details"]) == ("CONFLICT", {"outcome_unknown": True})
    assert works.done == ["it"]
    assert [receipt.reply for receipt in receipts(works)] == [None]


async def test_p2_what_a_passing_error_cut_short_has_an_unknown_outcome_after_a_restart(
    works: Works, wire: Any, open_house: Any, open_wire: Any
) -> None:
    works.house.store.refusing = lambda commit: Busy("locked") if name_of(commit.changes[0]) == "second" else None
    id = new_id()
    await wire.ask("made.half", id=id)
    works.house.store.refusing = lambda _commit: None
    later: list[Works] = []

    def actions(house: Any) -> list[Action[Any]]:
        later.append(Works(house))
        return later[0].actions()

    async with open_house(actions=actions, store=works.house.store) as house, open_wire(house) as again:
        assert (await again.ask("made.half", id=id))["payload"]["details"] == {"outcome_unknown": True}
    assert later[0].done == []


async def test_an_id_of_one_connection_has_an_unknown_outcome_too(works: Works, wire: Any) -> None:
    works.house.store.refusing = lambda commit: Busy("locked") if name_of(commit.changes[0]) == "second" else None
    assert (await wire.ask("made.half", id="1"))["payload"]["code"] == "BUSY"
    works.house.store.refusing = lambda _commit: None
    assert (await wire.ask("made.half", id="1"))["payload"]["details"] == {"outcome_unknown": True}
    assert works.done == ["it"]


async def test_success_without_a_commit_is_remembered(works: Works, wire: Any, other: Any) -> None:
    id = new_id()
    await wire.ask("made.nothing", id=id)
    assert (await other.ask("made.nothing", id=id))["payload"] == {"number": 1}
    assert carried(works) == [["reply"]]


async def test_a_secret_is_not_kept_but_that_it_was_made(works: Works, wire: Any, other: Any) -> None:
    id = new_id()
    assert (await wire.ask("made.key", id=id))["payload"]["key"] == "top-secret"
    error = (await other.ask("made.key", id=id))["payload"]
    assert (error["code"], error["details"]["response_kept"]) == ("CONFLICT", False)
    assert "top-secret" not in str(receipts(works))
    assert works.done == ["it"]


async def test_a_login_is_not_remembered_at_all(works: Works, wire: Any) -> None:
    id = new_id()
    await wire.ask("made.login", id=id)
    await wire.ask("made.login", id=id)
    assert works.done == ["it", "it"]
    assert receipts(works) == []


async def test_reads_neither_look_up_nor_leave_a_receipt(works: Works, wire: Any) -> None:
    id = new_id()
    await wire.ask("made.read", id=id)
    await wire.ask("made.read", id=id)
    assert works.done == ["it", "it"]
    assert (works.house.store.looked_up, works.house.store.commits) == (0, [])


async def test_a_repeated_request_follows_what_the_first_one_followed(works: Works, wire: Any, other: Any) -> None:
    id = new_id()
    await wire.ask("made.followed", id=id)
    assert (await other.ask("made.followed", id=id))["type"] == "response"
    await works.house.record(1, task_id="made")
    assert (await other.message())["type"] == "notification"


async def test_p11_an_answer_that_cannot_be_stored_is_given_all_the_same(works: Works, wire: Any, other: Any) -> None:
    def full(commit: Commit) -> StorageFull | None:
        return StorageFull("full") if name_of(commit.changes[0]) == "reply" else None

    works.house.store.refusing = full
    id = new_id()
    assert (await wire.ask("made.one", id=id))["payload"] == {"made": "it", "number": 1}
    assert (await other.ask("made.one", id=id))["payload"] == {"made": "it", "number": 1}
    assert works.done == ["it"]


async def test_p11_what_a_full_disk_refused_may_be_tried_again(works: Works, wire: Any) -> None:
    works.house.store.refusing = lambda _commit: StorageFull("full")
    id = new_id()
    assert (await wire.ask("made.one", id=id))["payload"]["code"] == "STORAGE_FULL"
    works.house.store.refusing = lambda _commit: None
    assert (await wire.ask("made.one", id=id))["type"] == "response"
    assert carried(works) == [["test", "receipt"], ["reply"]]


async def test_without_a_look_into_the_store_nothing_is_done(
    works: Works, wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(_kind: Any, _id: str) -> None:
        raise Busy("locked")

    id = new_id()
    with monkeypatch.context() as locked:
        locked.setattr(works.house.store, "get", busy)
        assert (await wire.ask("made.one", id=id))["payload"]["code"] == "BUSY"
    assert works.done == []
    assert (await wire.ask("made.one", id=id))["type"] == "response"


async def test_the_id_of_another_principal_is_another_id(open_house: Any, open_wire: Any, people: Any) -> None:
    everybody = people(lambda token: Principal(token, "user", token, frozenset({"*"})))
    made: list[Works] = []

    def actions(house: Any) -> list[Action[Any]]:
        made.append(Works(house))
        return made[0].actions()

    id = new_id()
    async with (
        open_house(authenticator=everybody, actions=actions) as house,
        open_wire(house, token="ada") as ada,
        open_wire(house, token="bob") as bob,
    ):
        assert (await ada.ask("made.one", id=id))["payload"]["number"] == 1
        assert (await bob.ask("made.one", id=id))["payload"]["number"] == 2


@pytest.mark.parametrize(("bounds", "kept"), [((3, 1000), ["7", "8", "9"]), ((100, 25), ["8", "9"]), ((9, 1), ["9"])])
async def test_memory_is_bounded_and_keeps_the_latest(bounds: tuple[int, int], kept: list[str]) -> None:
    memory = Memory(*bounds)
    answer = Answer(b"x" * 10, is_error=False)
    for number in range(10):
        claim = Claim(str(number), "made.one", "", memory)
        memory.add(claim)
        memory.settle(claim, answer, answer)
    assert [str(number) for number in range(10) if memory.get(str(number))] == kept


async def test_a_request_that_was_cancelled_leaves_nobody_waiting(house: Any) -> None:
    """As when the host shuts down: whoever waits for it is told that its outcome is unknown."""
    receipts = Receipts(house.store, house.journal)
    request = Request(new_id(), "request", "made.one")
    claim, new = receipts.claim("me", request, Memory())
    same, again = receipts.claim("me", request, Memory())
    told: list[Answer] = []

    async def wait() -> None:
        told.append(await receipts.repeat(same))

    async def hang() -> Answer:
        await anyio.sleep_forever()
        raise AssertionError

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        with anyio.move_on_after(0.01):
            await receipts.perform(claim, hang)
    assert (new, again) == (True, False)
    assert b"outcome_unknown" in told[0].payload


def test_a_digest_tells_nothing_of_what_was_typed_into_a_form() -> None:
    def digest(action: str, **content: str) -> str:
        said = {"elicitation_id": "e", "outcome": "accept", "content": content}
        return digest_of(action, msgspec.Raw(msgspec.json.encode(said)))

    assert digest("elicitation.respond", pin="1234") == digest("elicitation.respond", pin="9876")
    assert digest("elicitation.respond", pin="1234") != digest("elicitation.respond", pin="1234", more="")
    assert digest("task.create", pin="1234") != digest("task.create", pin="9876")
