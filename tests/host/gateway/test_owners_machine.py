"""Boards, tasks and what hangs on them, that change hands: no sequence of requests lets a member change another's."""

from __future__ import annotations

import asyncio
import tempfile
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from kandev_host.bus import MemoryBus
from kandev_host.errors import Forbidden, KandevError, NotFound
from kandev_host.gateway.access import AGENTS_MAY, Access
from kandev_host.gateway.actions import core_actions
from kandev_host.interfaces import Call, Environment, Principal, Put, scopes_of
from kandev_host.journal import Journal
from kandev_host.models import Board, Column, Task, User
from kandev_host.protocol.actions.boards import BoardUpdate
from kandev_host.services.agent_tokens import SCOPES
from kandev_host.services.agent_types import AgentTypeService
from kandev_host.services.boards import BoardService
from kandev_host.services.columns import ColumnService
from kandev_host.services.credentials.choice import Credentials
from kandev_host.services.directories import Directories
from kandev_host.services.locks import Locks
from kandev_host.services.mcp import McpServers
from kandev_host.services.ownership import Ownership
from kandev_host.services.reach import Reach
from kandev_host.services.runs import LiveRuns
from kandev_host.services.tasks import TaskService
from kandev_host.services.users import UserService
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.settings import WorkspaceSettings
from kandev_sqlite import SqliteSettings, open_store

from .access_world import IDS, ON_TASK, VALUES, agent
from .test_actions import SERVICES

MEMBERS = {name: Principal(name, "user", name, scopes_of("member")) for name in ("ada", "bob")}
ADMIN = Principal("root", "user", "root", frozenset({"*"}))
NOUNS = {**{name: name.removesuffix("_id") for name in IDS}, "workspace_id": "task"}
# In the order in which they need each other.
KEPT = {
    "session": "s", "prompt": "p", "permission": "q", "elicitation": "e", "rule": "r", "shell": "sh", "snapshot": "sn",
}  # fmt: skip


class Stub:
    """A service that has nothing to refuse."""

    def __getattr__(self, method: str) -> Any:
        async def served(_principal: Any, _request: Any) -> None:
            return None

        return served


class Owners(RuleBasedStateMachine):
    """The model: whose each board is, and the board of every other thing. What is deleted stays known."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.owners: dict[str, str] = {}
        self.things: dict[str, dict[str, str]] = {noun: {} for noun in NOUNS.values()}
        self.gone: set[str] = set()

    def wait(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.opening = open_store(SqliteSettings(), Environment(self.folder.name, "0"))
        self.store = self.wait(self.opening.__aenter__())
        self.done, self.up = asyncio.Event(), asyncio.Event()
        self.holder = self.loop.create_task(self.hold())
        self.wait(self.up.wait())
        users, runs, locks = UserService(self.store, self.journal), LiveRuns(self.store), Locks()
        workspaces = WorkspaceService(self.store, self.journal, {}, WorkspaceSettings())
        types = AgentTypeService(self.store, self.journal, locks, {}, runtimes={}, default_runtime="", reach=Reach())
        more: Any = {
            "mcp": McpServers({}), "directories": Directories({}), "credentials": Credentials({}, self.journal)
        }  # fmt: skip
        self.boards = BoardService(self.store, self.journal, locks=locks, users=users, runs=runs, workspaces=workspaces)
        services = {
            **{name: Stub() for name in SERVICES},
            "store": self.store,
            "boards": self.boards,
            "columns": ColumnService(self.store, self.journal, locks),
            "tasks": TaskService(self.store, self.journal, locks, runs, workspaces, types, **more),
        }
        self.access = Access(Ownership(self.store))
        self.actions = {action.name: action for action in core_actions(SimpleNamespace(**services))}  # type: ignore[arg-type]
        self.of_owners = sorted(name for name, action in self.actions.items() if action.for_owners)
        everybody = [User(id=name, email=name, username=name) for name in (*MEMBERS, "root")]
        self.wait(self.journal.record(*map(Put, everybody)))
        for name in MEMBERS:
            self.ask(name, "board.create", {"name": name})
            self.ask(name, "task.create", {"board_id": list(self.owners)[-1], "title": "t", "description": ""})

    async def hold(self) -> None:
        async with Journal(self.store, MemoryBus()) as self.journal:
            self.up.set()
            await self.done.wait()

    def teardown(self) -> None:
        if self.owners:
            self.done.set()
            self.wait(self.holder)
            self.wait(self.opening.__aexit__(None, None, None))
            self.folder.cleanup()
        self.loop.close()

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(who=st.sampled_from(sorted(MEMBERS)), data=st.data())
    def somebody_asks(self, who: str, data: st.DataObject) -> None:
        self.ask(who, *self.drawn(data, self.of_owners))

    def drawn(self, data: st.DataObject, names: list[str]) -> tuple[str, dict[str, Any]]:
        name = data.draw(st.sampled_from(names))
        payload: dict[str, Any] = {}
        for field in msgspec.structs.fields(self.actions[name].request):
            known = sorted(self.things[NOUNS[field.name]]) if field.name in NOUNS else []
            if known and (field.required or data.draw(st.booleans())):
                payload[field.name] = data.draw(st.sampled_from(known))
            elif field.required:
                payload[field.name] = VALUES.get(field.name, "none")
        return name, payload

    @rule(data=st.data())
    def an_agent_asks(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.things["task"])))
        itself = Principal(f"a-{task_id}", "agent", "demo", SCOPES, task_id=task_id)
        name, payload = self.drawn(data, sorted(self.actions))
        before = self.wait(self.of_others(task_id))
        try:
            self.wait(self.served(itself, name, payload))
        except (Forbidden, NotFound):
            return
        except KandevError:  # a service's own reasons
            pass
        assert name in AGENTS_MAY
        assert all(id.endswith(task_id) for field, id in payload.items() if field in NOUNS), (name, payload)
        after = self.wait(self.of_others(task_id))
        assert [row for row in after if row.id != task_id] == [row for row in before if row.id != task_id]

    @rule(who=st.sampled_from(sorted(MEMBERS)))
    def somebody_makes_a_board(self, who: str) -> None:
        self.ask(who, "board.create", {"name": who})

    @rule(owner=st.sampled_from(sorted(MEMBERS)), data=st.data())
    def an_admin_hands_a_board_over(self, owner: str, data: st.DataObject) -> None:
        board_id = data.draw(st.sampled_from(sorted(self.owners)))
        if board_id not in self.gone:
            self.wait(self.boards.update(ADMIN, BoardUpdate(board_id=board_id, owner_id=owner)))
            self.owners[board_id] = owner

    # --- what must hold -----------------------------------------------------------------------------------------------

    def ask(self, who: str, name: str, payload: dict[str, Any]) -> None:
        named = {field: id for field, id in payload.items() if field in NOUNS}
        boards = {self.things[NOUNS[field]].get(id) for field, id in named.items()}
        own = all(board is not None and self.owners[board] == who for board in boards)
        before = self.wait(self.of_others(who))
        try:
            reply = self.wait(self.served(MEMBERS[who], name, payload))
        except NotFound:
            reached = False
            assert "none" in payload.values() or self.gone.intersection({*named.values(), *boards}), (name, payload)
        except Forbidden:
            reached = False
            assert not own, (name, payload)
        except KandevError:  # a service's own reasons
            reached = True
        else:
            reached = True
            self.learn(who, name, payload, reply)
        assert own or not reached, (who, name, payload)
        assert self.wait(self.of_others(who)) == before

    async def served(self, who: Principal, name: str, payload: dict[str, Any]) -> Any:
        action = self.actions[name]
        request = msgspec.convert(payload, type=action.request)
        check = self.access.admit(who, action, request)
        if check is not None:
            await check()
        return await action.handler(Call(who, "1", lambda _topic: None), request)

    async def of_others(self, who: str) -> list[Any]:
        """Every row of the boards that are not theirs."""
        theirs = [board_id for board_id, owner in self.owners.items() if owner != who]
        rows: list[Any] = []
        for kind, field in ((Board, "id"), (Column, "board_id"), (Task, "board_id")):
            rows += (await self.store.find(kind, [(field, "in", theirs)], limit=500)).rows
        return rows

    def learn(self, who: str, name: str, payload: dict[str, Any], reply: Any) -> None:
        if name == "board.create":
            self.owners[reply.board.id] = who
            self.things["board"][reply.board.id] = reply.board.id
            self.things["column"] |= {column.id: reply.board.id for column in reply.columns}
        elif name == "column.create":
            self.things["column"][reply.column.id] = reply.column.board_id
        elif name == "task.create":
            self.things["task"][reply.task.id] = reply.task.board_id
            self.wait(self.journal.record(*map(Put, self.on_task(reply.task))))
        elif name == "column.delete":
            self.gone.add(payload["column_id"])
        elif name == "task.delete":
            self.gone |= {payload["task_id"], *(f"{key}-{payload['task_id']}" for key in (*KEPT.values(), "a"))}
        elif name == "board.delete":
            ids = (id for known in self.things.values() for id, board in known.items() if board == payload["board_id"])
            self.gone.update(ids)

    def on_task(self, task: Task) -> list[Any]:
        """An agent that has ended, and one thing of each kind."""
        rows: list[Any] = [msgspec.structs.replace(agent(f"a-{task.id}", task.id), status="COMPLETED")]
        self.things["agent"][f"a-{task.id}"] = task.board_id
        for noun, key in KEPT.items():
            kind, fields = ON_TASK[key]
            ids = {name: f"{fields[name][0]}-{task.id}" for name in ("agent_id", "session_id") if name in fields}
            rows.append(kind(**{**fields, **ids, "id": f"{key}-{task.id}", "task_id": task.id}))
            self.things[noun][f"{key}-{task.id}"] = task.board_id
        return rows


def test_no_sequence_of_requests_changes_a_board_of_another_member() -> None:
    run_state_machine_as_test(Owners, settings=settings(max_examples=8, stateful_step_count=30))
