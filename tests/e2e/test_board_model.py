"""Random actions of several clients against the real host and a small model of the rules: they never differ.

Also several at once: what then comes must be one of the sequential orders of the model. P2 (repeated request ids) and
P5 (order, no gap) are held all the while. `KANDEV_TEST_EXAMPLES` is the number of runs, `KANDEV_TEST_STEPS` of rules
in each.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from .board_model.effects import same_history
from .board_model.orders import orders
from .board_model.requests import (
    Drawn,
    changes,
    filters,
    list_payload,
    listed,
    payload_of,
    pick,
    refs,
    requests,
)
from .board_model.world import Difference, Reply, Row, Sent, Told, World, same

EXAMPLES = int(os.environ.get("KANDEV_TEST_EXAMPLES", "20"))
STEPS = int(os.environ.get("KANDEV_TEST_STEPS", "30"))
HOST_ENV = {
    "KANDEV_ORCHESTRATOR__AUTO_START": "false",
    "KANDEV_GATEWAY__REQUESTS_PER_S": "1000000",
    "KANDEV_GATEWAY__REQUEST_BURST": "1000000",
}
SOCKETS = 3
DEADLINE_S = 60.0
READS = ("task.get", "board.get", "column.list")
T = TypeVar("T")


class Wire:
    """One socket: each request has one answer, and each event comes once, in order."""

    def __init__(self, session: aiohttp.ClientSession, host: Any) -> None:
        self._session = session
        self._host = host
        self._answers: dict[str, asyncio.Future[Row]] = {}
        self._came = asyncio.Event()
        self._ids = 0
        self.told: list[Row] = []
        self.wrong: list[str] = []

    async def open(self) -> Wire:
        headers = {"Authorization": f"Bearer {self._host.token}"}
        self._socket = await self._session.ws_connect(f"{self._host.url}/ws", headers=headers, max_msg_size=0)
        self._reader = asyncio.get_running_loop().create_task(self._read())
        return self

    async def close(self) -> None:
        await self._socket.close()
        await self._reader
        same([], self.wrong, "what this socket received")

    def own_id(self) -> str:
        self._ids += 1
        return f"own-{self._ids}"

    async def ask(self, action: str, payload: Row, id: str | None = None) -> Row:
        """The whole message."""
        id = id or f"read-{uuid.uuid4()}"
        self._answers[id] = asyncio.get_running_loop().create_future()
        frame = {"id": id, "type": "request", "action": action, "payload": payload}
        await self._socket.send_str(msgspec.json.encode(frame).decode())
        return await asyncio.wait_for(self._answers[id], DEADLINE_S)

    async def until(self, seq: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not self.told or self.told[-1]["seq"] < seq:
                self._came.clear()
                await self._came.wait()

    async def _read(self) -> None:
        async for message in self._socket:
            got = msgspec.json.decode(message.data)
            if got["type"] != "notification":
                answer = self._answers.get(got["id"])
                if answer is None or answer.done():
                    self.wrong.append(f"a second answer: {got}")
                else:
                    answer.set_result(got)
            elif self.told and got["seq"] <= self.told[-1]["seq"]:
                self.wrong.append(f"out of order: {got}")
            else:
                self.told.append(got)
                self._came.set()


class Follower:
    """Follows `*`, goes away, comes back: what it was told so far is in `events`, by seq."""

    def __init__(self, session: aiohttp.ClientSession, host: Any) -> None:
        self._session = session
        self._host = host
        self.events: dict[int, Row] = {}
        self._after = 0
        self.wire: Wire | None = None

    async def follow(self, after: int | None) -> None:
        """From the event `after` on; None is from now on."""
        self.wire = await Wire(self._session, self._host).open()
        payload = {"topics": ["*"]} if after is None else {"topics": ["*"], "after_seq": after}
        reply = await self.wire.ask("events.subscribe", payload)
        same("response", reply["type"], "the answer of events.subscribe")
        self._after = self.start = reply["payload"]["seq"] if after is None else after

    async def leave(self) -> None:
        assert self.wire is not None
        await self.wire.close()
        self._keep()
        self.wire = None

    async def caught_up(self, head: int) -> list[Row]:
        """What is new up to the head."""
        assert self.wire is not None
        known = max(self.events, default=0)
        if head > self._after:
            await self.wire.until(head)
        self._keep()
        return [event for seq, event in self.events.items() if seq > known]

    def _keep(self) -> None:
        """Events that came again must be those that came before, without a gap."""
        assert self.wire is not None
        got = {event["seq"]: event for event in self.wire.told}
        again = [seq for seq in self.events if seq > self._after]
        both = again[: len(got)] if len(got) < len(again) else again
        same([self.events[seq] for seq in both], list(got.values())[: len(both)], "events that came again")
        self.events.update({seq: event for seq, event in got.items() if seq not in self.events})


class Boards(RuleBasedStateMachine):
    """Three sockets that change things, a fourth that follows everything, and the model."""

    def __init__(self, host: Any) -> None:
        super().__init__()
        self.host = host
        self.loop = asyncio.new_event_loop()
        self.worlds = [World()]
        self.mark = f"mark{uuid.uuid4().hex}"
        self.done: list[Sent] = []
        self.kept: dict[tuple[str, int | None], tuple[Sent, Reply]] = {}

    @property
    def world(self) -> World:
        return self.worlds[0]

    def wait(self, what: Awaitable[T]) -> T:
        return self.loop.run_until_complete(what)  # type: ignore[arg-type]

    @initialize(tasks=st.integers(0, 8), limit=st.none() | st.integers(1, 4), drawn=st.lists(changes, max_size=4))
    def open(self, tasks: int, limit: int | None, drawn: list[Drawn]) -> None:
        """Two boards with some tasks, of which the second may have a small column."""
        self.wait(self._open())
        first: list[Drawn] = [("board.create", {"name": name}) for name in ("one", "two")]
        first += [("task.create", {"board": n, "title": "pear", "description": "d"}) for n in range(tasks)]
        first += [("column.update", {"column": column, "wip_limit": limit}) for column in (4, 5, 6)]
        for each in [*first, *drawn]:
            self.wait(self._batch([self._sent(each, 0)]))

    async def _open(self) -> None:
        self.session = aiohttp.ClientSession()
        self.wires = [await Wire(self.session, self.host).open() for _ in range(SOCKETS)]
        self.follower = Follower(self.session, self.host)
        await self.follower.follow(None)

    def teardown(self) -> None:
        try:
            if hasattr(self, "session"):
                self.wait(self._close())
        finally:
            self.loop.close()

    async def _close(self) -> None:
        try:
            await self.follower.leave()
            for wire in self.wires:
                await wire.close()
                for event in wire.told:
                    same(self.follower.events[event["seq"]], event, "an event, as two sockets got it")
        finally:
            await self.session.close()

    @rule(drawn=requests, socket=st.integers(0, SOCKETS - 1), own=st.booleans())
    def one(self, drawn: Drawn, socket: int, own: bool) -> None:
        self.wait(self._batch([self._sent(drawn, socket, own)]))

    @rule(drawn=st.lists(requests, min_size=2, max_size=SOCKETS), away=st.booleans())
    def several_at_once(self, drawn: list[Drawn], away: bool) -> None:
        batch = [self._sent(each, socket) for socket, each in enumerate(drawn)]
        self.wait(self._batch(batch, away=away))

    @rule(
        ref=refs, drawn=st.lists(requests, min_size=2, max_size=SOCKETS), version=st.sampled_from(["none", "present"])
    )
    def several_at_once_about_the_same(self, ref: int, drawn: list[Drawn], version: str) -> None:
        alike = {"task": ref, "board": ref, "column": ref, "version": version}
        same_things = [
            (action, {name: alike.get(name, value) for name, value in fields.items()}) for action, fields in drawn
        ]
        self.wait(self._batch([self._sent(each, socket) for socket, each in enumerate(same_things)]))

    @rule(drawn=changes)
    def one_request_on_two_sockets_at_once(self, drawn: Drawn) -> None:
        sent = self._sent(drawn, 0)
        self.wait(self._batch([sent], twin=sent._replace(socket=1)))

    @rule(
        ref=st.integers(0, 1000), other=st.integers(0, 1000), changed=st.booleans(), socket=st.integers(0, SOCKETS - 1)
    )
    def an_earlier_id_again(self, ref: int, other: int, changed: bool, socket: int) -> None:
        if not self.done:
            return
        old = self.done[ref % len(self.done)]
        asked = self.done[other % len(self.done)] if changed else old
        socket = old.socket if old.id.startswith("own-") else socket
        self.wait(self._again(asked._replace(id=old.id, socket=socket)))

    @rule(drawn=filters)
    def tasks_are_listed(self, drawn: Row) -> None:
        payload = list_payload(self.world, drawn, self.mark)
        expected = listed(self.world, payload, _age)
        found, pages = self.wait(self._pages("task.list", payload, "tasks"))
        same(expected, found, f"task.list {payload}")
        same(max(1, -(-len(expected) // payload["limit"])), pages, f"pages of task.list {payload}")

    @rule(ref=refs, limit=st.integers(1, 4))
    def a_history_is_read(self, ref: int, limit: int) -> None:
        id = pick(self.world, list(self.world.tasks), ref)
        if id in self.world.tasks:
            found, _ = self.wait(self._pages("task.events", {"task_id": id, "limit": limit}, "events"))
            same_history(self.world.history[id], found)
            same(self.world.tasks[id]["version"], len(found), "one line for each version")
        else:
            reply = self.wait(self.wires[0].ask("task.events", {"task_id": id}))
            same(("error", "NOT_FOUND"), (reply["type"], reply["payload"].get("code")), "task.events of nothing")

    @rule(back=st.integers(0, 30))
    def the_follower_comes_back(self, back: int) -> None:
        self.wait(self._come_back(back))

    async def _come_back(self, back: int) -> None:
        await self.follower.leave()
        seqs = [self.follower.start, *self.follower.events]
        await self.follower.follow(seqs[max(0, len(seqs) - 1 - back)])
        same([], await self.follower.caught_up(await self._head()), "events that nothing explains")

    def _sent(self, drawn: Drawn, socket: int, own: bool = False) -> Sent:
        id = self.wires[socket].own_id() if own else str(uuid.uuid4())
        return Sent(drawn[0], payload_of(self.world, drawn, self.mark), id, socket)

    async def _batch(self, batch: Sequence[Sent], *, twin: Sent | None = None, away: bool = False) -> None:
        """Send all of them at once, and find the order that explains what comes; the follower may be away meanwhile."""
        asking = [self._ask(sent) for sent in [*batch, *([twin] if twin else [])]]
        if away:
            *replies, _ = await asyncio.gather(*asking, self._leave_and_return())
        else:
            replies = await asyncio.gather(*asking)
        if twin:
            same(replies[0], replies.pop(), f"two answers of {twin}")
        told = [_told(event) for event in await self.follower.caught_up(await self._head())]
        answered = list(zip(batch, replies, strict=True))
        self.worlds = [world for before in self.worlds for world in orders(before, answered, told)]
        for sent, reply in answered:
            if sent.action not in READS:
                self.done.append(sent)
                if not reply.error:
                    self.kept[_key(sent)] = sent, reply
        await self._compare()

    async def _again(self, sent: Sent) -> None:
        """An id that was used: the answer that it had, or a refusal of another request. A refused one is tried anew."""
        if _key(sent) not in self.kept:
            await self._batch([sent])
            return
        first, answer = self.kept[_key(sent)]
        reply = await self._ask(sent)
        if (first.action, first.payload) == (sent.action, sent.payload):
            same(answer, reply, f"{sent}, sent again")
        else:
            same(("CONFLICT", "id in use"), _code(reply), f"{sent}, with the id of {first}")
        same([], await self.follower.caught_up(await self._head()), f"events of a request sent again: {sent}")
        await self._compare()

    async def _ask(self, sent: Sent) -> Reply:
        got = await self.wires[sent.socket].ask(sent.action, sent.payload, sent.id)
        same(sent.action, got["action"], "the action of an answer")
        return Reply(got["type"] == "error", got["payload"])

    async def _leave_and_return(self) -> None:
        await self.follower.leave()
        await self.follower.follow(max(self.follower.events, default=self.follower.start))

    async def _head(self) -> int:
        return int((await self.wires[0].ask("board.list", {"limit": 1}))["seq"])

    async def _pages(self, action: str, payload: Row, name: str) -> tuple[list[Row], int]:
        rows: list[Row] = []
        pages, cursor = 0, None
        while pages == 0 or cursor is not None:
            reply = await self.wires[pages % SOCKETS].ask(action, {**payload, "cursor": cursor})
            same("response", reply["type"], f"{action} {payload}: {reply}")
            rows += reply["payload"][name]
            cursor = reply["payload"]["next_cursor"]
            pages += 1
        return rows, pages

    async def _compare(self) -> None:
        """All boards, columns and tasks, as the host has them now, with one of the worlds that explain what came."""
        ids = {id for world in self.worlds for id in world.boards}
        boards = {id: (await self.wires[0].ask("board.get", {"board_id": id}))["payload"] for id in ids}
        tasks, _ = await self._pages("task.list", {"query": self.mark, "limit": 500}, "tasks")
        shown = {task["id"]: task for task in tasks}
        wrong = []
        for world in self.worlds:
            rules = {id: {"board": row, "columns": world.columns[id]} for id, row in world.boards.items()}
            try:
                same(rules, boards, "the boards")
                same(world.tasks, shown, "the tasks")
            except Difference as error:
                wrong.append(str(error))
            else:
                self.worlds = [world]
                return
        raise Difference("\n".join(wrong))


def _age(task: Row) -> tuple[datetime, str]:
    return datetime.fromisoformat(task["created_at"]), task["id"]


def _key(sent: Sent) -> tuple[str, int | None]:
    """What an id that is no UUID counts in: its connection."""
    return sent.id, sent.socket if sent.id.startswith("own-") else None


def _code(reply: Reply) -> tuple[Any, Any]:
    return (reply.payload.get("code"), reply.payload.get("details", {}).get("state")) if reply.error else (None, None)


def _told(event: Row) -> Told:
    payload = event["payload"]
    noun = event["action"].partition(".")[0]
    return Told(event["action"], payload[noun]["id" if noun == "board" else "board_id"], payload)


@pytest.mark.load
@pytest.mark.timeout(360 + 10 * EXAMPLES)  # hypothesis gives up shrinking after 300 s
def test_the_host_and_the_model_of_its_rules_never_differ(make_host: Any) -> None:
    """P2, P5: whatever is asked, in whatever order, also at once and also again."""
    host = make_host(**HOST_ENV)
    run_state_machine_as_test(
        lambda: Boards(host),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            phases=[Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert "Traceback" not in host.log()
