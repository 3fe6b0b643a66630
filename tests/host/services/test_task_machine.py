"""Task states and positions against a model: whatever is asked in whatever order, both agree and stay dense."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kandev_host.bus import MemoryBus
from kandev_host.errors import Conflict
from kandev_host.interfaces import Environment, Principal
from kandev_host.journal import Journal
from kandev_host.models import LOCAL_USER_ID, Task
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.tasks import TaskCreate, TaskDelete, TaskMove, TaskStateChange
from kandev_host.services.agent_types import AgentTypeService
from kandev_host.services.boards import BoardService
from kandev_host.services.credentials.choice import Credentials
from kandev_host.services.directories import Directories
from kandev_host.services.locks import Locks
from kandev_host.services.mcp import McpServers
from kandev_host.services.reach import Reach
from kandev_host.services.runs import LiveRuns
from kandev_host.services.tasks import TaskService
from kandev_host.services.users import UserService
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.settings import WorkspaceSettings
from kandev_sqlite import SqliteSettings, open_store

ME = Principal(LOCAL_USER_ID, "user", "local")
STATES = ("TODO", "IN_PROGRESS", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED")
COLUMN_STATES = ("TODO", "IN_PROGRESS", "BLOCKED", "COMPLETED")
FINISHED = {"COMPLETED", "FAILED", "CANCELLED"}


def allowed(old: str, new: str) -> bool:
    """docs/protocol.md, said the other way round than in the code."""
    return new == "TODO" if old in FINISHED else new != old


class Tasks(RuleBasedStateMachine):
    """The model: a list of task ids per column, and a state per task."""

    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.columns: list[str] = []
        self.model: list[list[str]] = [[], [], [], []]
        self.states: dict[str, str] = {}

    def wait(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.opening = open_store(SqliteSettings(), Environment(self.folder.name, "0"))
        self.store = self.wait(self.opening.__aenter__())
        self.done = asyncio.Event()
        self.up = asyncio.Event()
        self.holder = self.loop.create_task(self.hold())
        self.wait(self.up.wait())
        users, runs, locks = UserService(self.store, self.journal), LiveRuns(self.store), Locks()
        workspaces = WorkspaceService(self.store, self.journal, {}, WorkspaceSettings())
        boards = BoardService(self.store, self.journal, locks=locks, users=users, runs=runs, workspaces=workspaces)
        types = AgentTypeService(self.store, self.journal, locks, {}, runtimes={}, default_runtime="", reach=Reach())
        more = {
            "mcp": McpServers({}), "directories": Directories({}), "credentials": Credentials({}, self.journal)
        }  # fmt: skip
        self.tasks = TaskService(self.store, self.journal, locks, runs, workspaces, types, **more)  # type: ignore[arg-type]
        self.wait(users.ensure_local())
        board = self.wait(boards.create(ME, BoardCreate(name="b")))
        self.board_id, self.columns = board.board.id, [column.id for column in board.columns]

    async def hold(self) -> None:
        async with Journal(self.store, MemoryBus()) as self.journal:
            self.up.set()
            await self.done.wait()

    def teardown(self) -> None:
        if self.columns:
            self.done.set()
            self.wait(self.holder)
            self.wait(self.opening.__aexit__(None, None, None))
            self.folder.cleanup()
        self.loop.close()

    def place(self, id: str) -> int:
        return next(index for index, ids in enumerate(self.model) if id in ids)

    @rule(target=made, column=st.integers(0, 3))
    def create(self, column: int) -> str:
        request = TaskCreate(board_id=self.board_id, title="t", description="", column_id=self.columns[column])
        task: Task = self.wait(self.tasks.create(ME, request)).task
        self.model[column].append(task.id)
        self.states[task.id] = COLUMN_STATES[column]
        return task.id

    @rule(id=made, state=st.sampled_from(STATES))
    def change_state(self, id: str, state: Any) -> None:
        request = TaskStateChange(task_id=id, state=state)
        if not allowed(self.states[id], state):
            self.refused(self.tasks.state(ME, request))
            return
        self.wait(self.tasks.state(ME, request))
        self.states[id] = state
        if state in COLUMN_STATES and self.place(id) != COLUMN_STATES.index(state):
            self.model[self.place(id)].remove(id)
            self.model[COLUMN_STATES.index(state)].append(id)

    @rule(id=made, column=st.integers(0, 3), position=st.integers(0, 6))
    def move(self, id: str, column: int, position: int) -> None:
        request = TaskMove(task_id=id, column_id=self.columns[column], position=position)
        state = COLUMN_STATES[column]
        changes = self.place(id) != column and self.states[id] != state
        if changes and not allowed(self.states[id], state):
            self.refused(self.tasks.move(ME, request))
            return
        self.wait(self.tasks.move(ME, request))
        self.model[self.place(id)].remove(id)
        self.model[column].insert(position, id)
        if changes:
            self.states[id] = state

    @rule(id=consumes(made))
    def delete(self, id: str) -> None:
        self.wait(self.tasks.delete(ME, TaskDelete(task_id=id)))
        self.model[self.place(id)].remove(id)
        del self.states[id]

    def refused(self, call: Any) -> None:
        head = self.journal.state.head
        try:
            self.wait(call)
        except Conflict:
            assert self.journal.state.head == head
            return
        raise AssertionError("this should have been a conflict")

    @invariant()
    def agrees(self) -> None:
        if not self.columns:
            return
        rows = self.wait(self.store.find(Task, limit=500)).rows
        for column_id, ids in zip(self.columns, self.model, strict=True):
            here = sorted((row for row in rows if row.column_id == column_id), key=lambda row: row.position)
            assert [row.id for row in here] == ids
            assert [row.position for row in here] == list(range(len(ids)))
        assert {row.id: row.state for row in rows} == self.states
        assert all((row.completed_at is not None) == (row.state in FINISHED) for row in rows)


def test_states_and_positions_agree_with_the_model() -> None:
    run_state_machine_as_test(
        Tasks,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
