"""A host that dies at any commit of a turn, under an agent that outlives it: the next one tells the rest."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from kandev_host import secrets
from kandev_host.bus import MemoryBus
from kandev_host.errors import Conflict, KandevError
from kandev_host.interfaces import AgentType, Environment, ProcessSpec, Put, Stats
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Board, HostState, PermissionRequest, Session, Task, Turn, Usage, User
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.prompts import PromptQueue
from kandev_host.sessions.rulebook import RuleBook
from kandev_host.sessions.stage import Left
from kandev_host.sessions.supervisor import AgentSupervisor
from kandev_host.sessions.wire import read_state, state_id
from kandev_host.settings import PermissionSettings
from kandev_sqlite import SqliteSettings, open_store

from .conftest import DEADLINE_S, QUICK, PlainRuntime, World, blocks

pytestmark = pytest.mark.anyio
SECRET = "swordfish-4711"
OPTIONS = [{"optionId": "once", "name": "Once", "kind": "allow_once"}]
CALL = {"toolCallId": "t1", "title": "Write", "kind": "edit"}
WORDS = "one two [redacted] three, asked, four five"


class Immortal:
    """An agent that outlives its hosts: all that it wrote, and was sent."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.got: list[dict[str, Any]] = []
        self.news = anyio.Event()

    def say(self, **message: Any) -> None:
        self.written += json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        self.tell()

    def tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    def update(self, variant: str, **fields: Any) -> None:
        params = {"sessionId": "s1", "update": {"sessionUpdate": variant, **fields}}
        self.say(method="session/update", params=params)

    def speak(self, *texts: str) -> None:
        for text in texts:
            self.update("agent_message_chunk", content={"type": "text", "text": text})

    def hear(self, message: dict[str, Any]) -> None:
        self.got.append(message)
        method, id = message.get("method"), message.get("id")
        if method == "initialize":
            self.say(id=id, result={"protocolVersion": 1})
        elif method == "session/new":
            self.say(id=id, result={"sessionId": "s1"})
            self.update("available_commands_update", availableCommands=[])
        elif method == "session/prompt":
            self.speak("one ", "two sword")
            self.speak("fish-4711 three")
            self.update("tool_call", status="pending", **CALL)
            self.written += b"this is no message\n"
            self.speak(", sword"[:2])
            params = {"sessionId": "s1", "toolCall": CALL, "options": OPTIONS}
            self.say(id="p1", method="session/request_permission", params=params)
        elif id == "p1" and len([each for each in self.got if each.get("id") == "p1"]) == 1:
            self.speak("asked, ")
            self.update("tool_call_update", toolCallId="t1", status="completed")
            self.speak("four ", "five")
            self.say(id=self.prompt["id"], result={"stopReason": "end_turn", "usage": {"totalTokens": 9}})
            self.update("session_info_update", title="Behind the answer")

    @property
    def prompt(self) -> dict[str, Any]:
        (prompt,) = [each for each in self.got if each.get("method") == "session/prompt"]
        return prompt


class Pipes:
    """What one host has of it, until it is cut off."""

    ref = "immortal"
    ending = None
    adoptable = True

    def __init__(self, agent: Immortal, position: int = 0) -> None:
        self._agent = agent
        self.position = position
        self._cut = anyio.Event()

    def cut(self) -> None:
        self._cut.set()
        self._agent.tell()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while not self._cut.is_set():
            if chunk := bytes(self._agent.written[self.position : self.position + 200]):
                self.position += len(chunk)
                return chunk
            await self._agent.news.wait()
        return b""

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        await self._cut.wait()
        return b""

    async def send(self, data: bytes) -> None:
        if self._cut.is_set():
            raise BrokenPipeError
        self._agent.hear(json.loads(data))

    async def wait(self) -> int:
        await self._cut.wait()
        return -9

    async def close_stdin(self) -> None:
        self.cut()

    async def terminate(self) -> None:
        self.cut()

    async def kill(self) -> None:
        self.cut()

    async def stats(self) -> Stats:
        return Stats()


class MortalStore:
    """Takes so many commits, one by one; then its host is dead."""

    def __init__(self, store: Any, lives: int, pipes: Pipes) -> None:
        self._store = store
        self.lives = lives
        self._pipes = pipes
        self.dead = anyio.Event()
        self.taken = 0

    async def commit(self, commits: Sequence[Any]) -> list[Any]:
        outcomes: list[Any] = []
        for commit in commits:
            if self.taken == self.lives:
                self._pipes.cut()
                self.dead.set()
                raise Conflict("dead", state="dead")
            outcomes += await self._store.commit([commit])
            self.taken += 1
        return outcomes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Runtime(PlainRuntime):
    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes

    @asynccontextmanager
    async def spawn(self, spec: ProcessSpec) -> AsyncIterator[Any]:
        yield self._pipes


@asynccontextmanager
async def host(folder: Path, pipes: Pipes, lives: int = -1) -> AsyncIterator[World]:
    async with open_store(SqliteSettings(), Environment(str(folder), "0")) as real:
        store: Any = MortalStore(real, lives, pipes)
        bus = MemoryBus()
        async with Journal(store, bus) as journal:
            broker = PermissionBroker(store, journal, settings=PermissionSettings(), rules=RuleBook(store))
            async with AgentSupervisor(journal, broker, QUICK) as supervisor:
                world = World(
                    store,
                    journal,
                    broker,
                    supervisor,
                    Task(board_id="", title="", description="", created_by=""),
                    bus,
                    QUICK,
                )
                bus.subscribe(["*"], world.sink)
                yield world


async def start(world: World, agent: AgentInstance, task: Task, pipes: Pipes, left: Left | None = None) -> None:
    waiting = [turn for turn in await world.rows(Turn) if turn.state == "queued"]
    await world.supervisor.start(
        agent,
        task,
        AgentType(name="scripted", command=("x",)),
        Runtime(pipes),
        ProcessSpec(workspace_id=task.id, command=("x",)),
        first_prompt=None if left is not None else blocks("go"),
        prompts=None if left is None else PromptQueue(world.journal, agent, waiting),
        created_by="user",
        situation=Situation(agent_type="scripted", task_id=task.id),
        left=left,
    )


async def first_host(folder: Path, immortal: Immortal, lives: int, orchestrated: bool) -> bool:
    """Until it is dead; False if it lived to see the end of the turn, and of a run that ends with it."""
    pipes = Pipes(immortal)
    async with host(folder, pipes, lives) as world:
        user = User(email="user@example.org", username="user")
        board = Board(name="Work", owner_id=user.id)
        task = Task(board_id=board.id, title="A task", description="", created_by=user.id)
        agent = AgentInstance(
            id="agent", task_id=task.id, agent_type="scripted", runtime="plain", orchestrated=orchestrated
        )
        await world.journal.record(*map(Put, (user, board, task, agent)))
        await start(world, agent, task, pipes)
        return await until_dead(world, pipes)


async def next_host(folder: Path, immortal: Immortal, lives: int = -1) -> str:
    """What came of the run: "over" where the turn's end was told, "dead" with this host, else why it is not gone on
    with.
    """
    pipes = Pipes(immortal)
    async with host(folder, pipes, lives) as world:
        agent = await world.store.get(AgentInstance, "agent")
        assert agent is not None
        if agent.status != "RUNNING":
            return "starting"
        found = await left(world, pipes)
        if found is None:
            return "doubt"
        pipes.position = found.wire.replay
        await start(world, agent, (await world.rows(Task))[0], pipes, found)
        return "dead" if await until_dead(world, pipes) else "over"


async def until_dead(world: World, pipes: Pipes) -> bool:
    """False if it lived to see the end of the turn."""
    store: Any = world.store
    async with anyio.create_task_group() as tasks:

        async def live() -> None:
            await finish(world)
            tasks.cancel_scope.cancel()

        tasks.start_soon(live)
        await store.dead.wait()
        tasks.cancel_scope.cancel()
    dead: bool = store.dead.is_set()
    store.lives = store.taken  # its shutdown is no part of its death
    pipes.cut()
    return dead


async def finish(world: World) -> None:
    """Answer what is asked, until the turn is over and all is told."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            for request in world.broker.pending("agent"):
                try:
                    await world.broker.answer(request.id, principal=world.me, option_id="once")
                except KandevError:
                    await anyio.sleep(0.01)
            turns, sessions, agents = [await world.rows(kind) for kind in (Turn, Session, AgentInstance)]
            if agents[0].status == "COMPLETED":
                return
            if [turn.state for turn in turns] == ["ended"] and sessions[0].title and not agents[0].orchestrated:
                return
            await anyio.sleep(0.01)


async def left(world: World, pipes: Pipes) -> Left | None:
    """What the dead host has left; None for what nobody goes on with."""
    wire = read_state(await world.store.get(HostState, state_id("agent")))
    assert wire is not None
    turns = [turn for turn in await world.rows(Turn) if turn.state == "running"]
    assert [turn.id for turn in turns] == [each for each in (wire.turn_id,) if each is not None]
    if turns and not wire.sent:
        return None
    requests = {row.id: row for row in await world.rows(PermissionRequest)}
    noted = [request.row_id for request in wire.requests if request.row_id is not None]
    return Left(
        process=pipes,
        session=(await world.rows(Session))[0],
        wire=wire,
        turn=turns[0] if turns else None,
        ended=next((turn for turn in await world.rows(Turn) if turn.state == "ended"), None),
        questions={id: requests[id] for id in noted},
    )


async def told(world: World) -> list[tuple[str, dict[str, Any]]]:
    events = await world.store.events(0, topics=("agent:agent",), limit=500)
    return [(event.action, msgspec.json.decode(event.payload)) for event in events]


def summed(events: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What must be the same whenever the host died."""
    logs = [payload for action, payload in events if action == "acp.log"]
    return {
        "words": "".join(log["message"] for log in logs if log["metadata"]["type"] == "agent_message_chunk"),
        "calls": [log["metadata"]["status"] for log in logs if log["metadata"]["type"].startswith("tool_call")],
        "titles": [p["update"]["title"] for a, p in events if a == "acp.status" and "title" in p.get("update", {})],
        **{
            action: sum(each == action for each, _ in events)
            for action in ("acp.result", "acp.error", "permission.requested", "permission.resolved")
        },
    }


WHOLE = {
    "words": WORDS,
    "calls": ["pending", "completed"],
    "titles": ["Behind the answer"],
    "acp.result": 1,
    "acp.error": 1,
    "permission.requested": 1,
    "permission.resolved": 1,
}


@pytest.mark.parametrize("orchestrated", [False, True])
async def test_p1_p9_a_host_that_dies_at_any_commit_of_a_turn_loses_nothing_and_tells_nothing_twice(
    tmp_path: Path, orchestrated: bool
) -> None:
    """And the one after it dies as soon as it has committed twice more. A run that is to end with its turn does."""
    came = []
    with secrets.in_use():
        secrets.register(SECRET, "a test")
        for lives in range(4, 100):
            immortal, folder = Immortal(), tmp_path / str(lives)
            folder.mkdir()
            if not await first_host(folder, immortal, lives, orchestrated):
                break
            last = await next_host(folder, immortal, lives=2)
            last = await next_host(folder, immortal) if last == "dead" else last
            came.append(last)
            if last != "over":
                continue
            async with host(folder, Pipes(immortal)) as world:
                events = summed(await told(world))
                if orchestrated:  # then it is ended, perhaps before that is read
                    events["titles"] = WHOLE["titles"]
                assert (lives, events) == (lives, WHOLE)
                assert [row.total_tokens for row in await world.rows(Usage)] == [9]
            assert immortal.prompt["params"]["prompt"] == blocks("go")
            answers = [each["result"]["outcome"] for each in immortal.got if each.get("id") == "p1"]
            assert answers
            assert all(answer == {"outcome": "selected", "optionId": "once"} for answer in answers)
    assert came.count("over") > 10
    assert came.count("doubt") < 4
