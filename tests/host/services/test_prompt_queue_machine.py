"""The prompts that wait for an agent against a plain list: whatever happens in whatever order, rows and list agree."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from kandev_host.bus import MemoryBus
from kandev_host.errors import Conflict
from kandev_host.events import Event
from kandev_host.interfaces import Change, Environment, Put
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Board, Task, Turn, User, new_id
from kandev_host.services.prompt_queue import hand_over
from kandev_host.services.resume import Past
from kandev_host.sessions.prompts import PromptQueue
from kandev_sqlite import SqliteSettings, open_store

places = st.integers(0, 5)


class Prompts(RuleBasedStateMachine):
    """The model: what the prompts say, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model: list[str] = []
        self.begun: list[Turn] = []
        self.told: Any = None
        self.said = 0
        self.open = False

    def wait(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.opening = open_store(SqliteSettings(), Environment(self.folder.name, "0"))
        self.store = self.wait(self.opening.__aenter__())
        self.done, up = asyncio.Event(), asyncio.Event()
        self.holder = self.loop.create_task(self.hold(up))
        self.wait(up.wait())
        user = User(email="a@example.org", username="a")
        board = Board(name="b", owner_id=user.id)
        self.task = Task(board_id=board.id, title="t", description="", created_by=user.id)
        self.agent = AgentInstance(task_id=self.task.id, agent_type="demo", runtime="none")
        self.wait(self.journal.record(*map(Put, (user, board, self.task, self.agent))))
        self.queue = PromptQueue(self.journal, self.agent)
        self.open = True

    async def hold(self, up: asyncio.Event) -> None:
        bus = MemoryBus()
        bus.subscribe(["*"], self.hear)
        async with Journal(self.store, bus) as self.journal:
            up.set()
            await self.done.wait()

    def hear(self, event: Event) -> None:
        if event.action == "queue.updated":
            payload = msgspec.json.decode(event.payload)
            if payload["agent_id"] == self.agent.id:
                self.told = [(prompt["position"], prompt["text"]) for prompt in payload["prompts"]]

    def teardown(self) -> None:
        if self.open:
            self.done.set()
            self.wait(self.holder)
            self.wait(self.opening.__aexit__(None, None, None))
            self.folder.cleanup()
        self.loop.close()

    def words(self) -> tuple[str, list[dict[str, Any]]]:
        self.said += 1
        return f"prompt {self.said}", [{"type": "text", "text": f"prompt {self.said}"}]

    def id_at(self, place: int) -> str:
        return self.queue.waiting[place % len(self.model)].id

    @rule(interrupt=st.booleans())
    def add(self, interrupt: bool) -> None:
        text, blocks = self.words()
        self.wait(self.queue.add(blocks, "me", first=interrupt))
        self.model.insert(0 if interrupt else len(self.model), text)

    @precondition(lambda self: self.model)
    @rule(place=places, to=places)
    def move(self, place: int, to: int) -> None:
        self.wait(self.queue.change(self.id_at(place), position=to))
        self.model.insert(to, self.model.pop(place % len(self.model)))

    @precondition(lambda self: self.model)
    @rule(place=places, to=st.none() | places)
    def edit(self, place: int, to: int | None) -> None:
        text, blocks = self.words()
        self.wait(self.queue.change(self.id_at(place), blocks=blocks, position=to))
        at = place % len(self.model)
        self.model.pop(at)
        self.model.insert(at if to is None else to, text)

    @precondition(lambda self: self.model)
    @rule(place=places)
    def remove(self, place: int) -> None:
        self.wait(self.queue.remove(self.id_at(place)))
        self.model.pop(place % len(self.model))

    @rule(works=st.booleans())
    def turn_end(self, works: bool) -> None:
        """The next prompt is taken; the store may refuse its beginning, and then it waits as before."""

        async def begin(turn: Turn, changes: Sequence[Change]) -> Turn:
            if not works:
                raise Conflict("refused", state="test")
            running = replace(turn, state="running", position=0)
            await self.journal.record(Put(running), *changes)
            return running

        try:
            turn = self.wait(self.queue.take(begin))
        except Conflict:
            return
        assert (turn is None) == (not self.model)
        if turn is not None:
            assert turn.prompt[0]["text"] == self.model.pop(0)
            self.begun.append(turn)

    @precondition(lambda self: self.begun)
    @rule(place=places)
    def touch_what_has_begun(self, place: int) -> None:
        turn, head = self.begun[place % len(self.begun)], self.journal.state.head
        for change in (self.queue.remove, lambda turn_id: self.queue.change(turn_id, position=0)):
            try:
                self.wait(change(turn.id))
            except Conflict:
                assert self.journal.state.head == head
            else:
                raise AssertionError("this should have been a conflict")

    @rule(prompt=st.booleans(), closed=st.booleans())
    def death(self, prompt: bool, closed: bool) -> None:
        """The run is over, and another one goes on with it; its person may have something to say."""
        if closed:
            assert len(self.wait(self.queue.close())) == len(self.model)
        text, blocks = self.words() if prompt else (None, None)
        before = self.agent
        self.agent = replace(before, id=new_id())
        past = Past(before, None)
        over = self.wait(hand_over(self.store, self.journal, self.agent, past, blocks, "me"))
        self.wait(self.journal.record(Put(self.agent), *over.changes))
        self.queue = over.queue
        self.model += [text] if text is not None else []

    @invariant()
    def agrees(self) -> None:
        if not self.open:
            return
        page = self.wait(self.store.find(Turn, [("state", "=", "queued")], order=("position", "id"), limit=500))
        expected = [(self.agent.id, at, text) for at, text in enumerate(self.model)]
        assert [(turn.agent_id, turn.position, turn.prompt[0]["text"]) for turn in page.rows] == expected
        assert list(self.queue.waiting) == page.rows
        assert self.told in (None, list(enumerate(self.model)))


def test_the_prompts_that_wait_agree_with_a_plain_list() -> None:
    run_state_machine_as_test(
        Prompts,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
