"""Boards. A new one has a column for each state that a person looks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET
from msgspec.structs import asdict, replace

from kandev_host.errors import Conflict, NotFound
from kandev_host.events import Event, event
from kandev_host.interfaces import Expect, Principal, Put, Remove, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Board, Column, QueueEntry, Task, TaskState, now
from kandev_host.protocol.actions.boards import (
    BoardCreate,
    BoardDelete,
    BoardDeleted,
    BoardGet,
    BoardList,
    BoardRemoved,
    BoardReply,
    BoardsReply,
    BoardUpdate,
    BoardWithColumns,
)
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.entries import queue_event
from kandev_host.services.rows import PAGE, columns_of, every, need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.tasks import task_event
from kandev_host.services.transitions import check_version
from kandev_host.services.users import UserService

if TYPE_CHECKING:
    from kandev_host.services.workspaces import WorkspaceService

DEFAULT_COLUMNS: tuple[tuple[str, TaskState], ...] = (
    ("To Do", "TODO"),
    ("In Progress", "IN_PROGRESS"),
    ("Blocked", "BLOCKED"),
    ("Done", "COMPLETED"),
)


def board_event(action: str, board: Board, principal: Principal) -> Event:
    return event(action, {"board": board}, actor=principal.id, board_id=board.id)


class BoardService:
    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        locks: Locks,
        users: UserService,
        runs: LiveRuns,
        workspaces: WorkspaceService,
    ) -> None:
        self._store = store
        self._journal = journal
        self._locks = locks
        self._users = users
        self._runs = runs
        self._workspaces = workspaces

    async def list(self, principal: Principal, request: BoardList) -> BoardsReply:
        del principal
        page = await self._store.find(Board, limit=request.limit, cursor=request.cursor)
        return BoardsReply(boards=page.rows, next_cursor=page.next_cursor)

    async def create(self, principal: Principal, request: BoardCreate) -> BoardWithColumns:
        """A board with its default columns. Raises `NotFound` for an unknown owner, `Forbidden` for another's."""
        owner_id = await self._users.owner(principal, request.owner_id)
        board = Board(name=request.name, description=request.description, owner_id=owner_id)
        columns = [
            Column(board_id=board.id, name=name, position=position, state=state)
            for position, (name, state) in enumerate(DEFAULT_COLUMNS)
        ]
        told = board_event("board.created", board, principal)
        await self._journal.record(Put(board), *(Put(column) for column in columns), told)
        return BoardWithColumns(board=board, columns=columns)

    async def get(self, principal: Principal, request: BoardGet) -> BoardWithColumns:
        del principal
        board = await need(self._store, Board, request.board_id)
        return BoardWithColumns(board=board, columns=await columns_of(self._store, board.id))

    async def update(self, principal: Principal, request: BoardUpdate) -> BoardReply:
        """Change the fields that are there; nothing is written when none differs. Raises as `create` for an owner."""
        owner_id = (
            request.owner_id if request.owner_id is UNSET else await self._users.owner(principal, request.owner_id)
        )
        async with self._locks.hold(f"board:{request.board_id}"):
            board = await need(self._store, Board, request.board_id)
            check_version("board", board, request.expected_version)
            wanted = {"name": request.name, "description": request.description, "owner_id": owner_id}
            changes = {key: value for key, value in wanted.items() if value is not UNSET}
            if all(asdict(board)[key] == value for key, value in changes.items()):
                return BoardReply(board=board)
            board = replace(board, **changes, version=board.version + 1, updated_at=now())
            gone = Expect(Board, board.id, NotFound("board", board.id))
            await self._journal.record(Put(board), board_event("board.updated", board, principal), expect=[gone])
            return BoardReply(board=board)

    async def delete(self, principal: Principal, request: BoardDelete) -> BoardDeleted:
        """With its columns, tasks and workspaces.

        Raises `Conflict` with agents or shells, or work in a workspace that is nowhere else, unless `force`.
        """
        board = await need(self._store, Board, request.board_id)
        check_version("board", board, request.expected_version)
        with self._runs.closing(board.id):
            async with self._locks.hold(f"board:{board.id}"):
                here = await self._live(board)
            await self._runs.end(here, "board", force=request.force)
            if not request.force:
                await self._check_free(board)
            return await self._delete(principal, request, stopped=len(here))

    async def _delete(self, principal: Principal, request: BoardDelete, *, stopped: int) -> BoardDeleted:
        async with self._locks.hold(f"board:{request.board_id}"):
            board = await need(self._store, Board, request.board_id)
            check_version("board", board, None if stopped else request.expected_version)
            await self._runs.end(await self._live(board), "board", force=False)
            tasks = [task async for task in every(self._store, Task, [("board_id", "=", board.id)], ("id",))]
            await self._runs.close_shells({task.id for task in tasks}, "board", force=request.force)
            removed = BoardRemoved(
                columns=await self._store.count(Column, [("board_id", "=", board.id)]),
                tasks=len(tasks),
                agents=await self._agents_of([task.id for task in tasks]),
                stopped=stopped,
            )
            # Also of each task: who follows one of them does not hear of its board.
            queued = [entry.id async for entry in every(self._store, QueueEntry, [("board_id", "=", board.id)])]
            gone = [queue_event(task_id, board.id, None) for task_id in queued]
            gone += [task_event("task.deleted", task, principal.id) for task in tasks]
            await self._journal.record(Remove(Board, board.id), *gone, board_event("board.deleted", board, principal))
            # Behind the commit: a store that fails deletes nothing. What is left of a folder, the next start removes.
            left = [await self._workspaces.discard(task.id) for task in tasks]
            kept = sum(one.left is not None for one in left)
        return BoardDeleted(board_id=board.id, removed=replace(removed, workspaces_left=kept))

    async def _check_free(self, board: Board) -> None:
        async for task in every(self._store, Task, [("board_id", "=", board.id)], ("id",)):
            await self._runs.close_shells([task.id], "board", force=False)
            try:
                await self._workspaces.check_saved(task.id)
            except Conflict as error:
                error.details["task_id"] = task.id
                raise

    async def _agents_of(self, tasks: Sequence[str]) -> int:
        parts = [tasks[start : start + PAGE] for start in range(0, len(tasks), PAGE)]
        return sum([await self._store.count(AgentInstance, [("task_id", "in", part)]) for part in parts])

    async def _live(self, board: Board) -> Sequence[AgentInstance]:
        live = await self._runs.everywhere()
        tasks = {task_id: await self._store.get(Task, task_id) for task_id in {agent.task_id for agent in live}}
        return [agent for agent in live if (task := tasks[agent.task_id]) is not None and task.board_id == board.id]
