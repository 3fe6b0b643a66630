from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from kandev_host.errors import Conflict, NotFound
from kandev_host.models import Column, Task
from kandev_host.protocol.actions.boards import (
    BoardCreate,
    BoardDelete,
    BoardGet,
    BoardList,
    BoardUpdate,
    ColumnCreate,
    ColumnDelete,
    ColumnList,
    ColumnMove,
    ColumnUpdate,
)
from kandev_host.protocol.actions.tasks import TaskCreate, TaskEvents, TaskList, TaskMove

pytestmark = pytest.mark.anyio


@pytest.fixture
async def board(house: Any) -> Any:
    return await house.boards.create(house.me, BoardCreate(name="Work"))


async def columns(house: Any, board: Any) -> list[Column]:
    return list((await house.columns.list(house.me, ColumnList(board_id=board.board.id))).columns)


def actions(house: Any) -> list[str]:
    return [item.action for item in house.events]


async def test_a_new_board_has_a_column_for_each_state_people_look_for(house: Any, board: Any) -> None:
    assert [(column.name, column.state, column.position) for column in await columns(house, board)] == [
        ("To Do", "TODO", 0),
        ("In Progress", "IN_PROGRESS", 1),
        ("Blocked", "BLOCKED", 2),
        ("Done", "COMPLETED", 3),
    ]


async def test_a_board_belongs_to_whoever_made_it(house: Any, board: Any) -> None:
    assert board.board.owner_id == house.me.id


async def test_an_unknown_owner_is_not_found(house: Any) -> None:
    with pytest.raises(NotFound) as caught:
        await house.boards.create(house.me, BoardCreate(name="x", owner_id="nobody"))
    assert caught.value.details == {"kind": "user", "id": "nobody"}


async def test_an_unknown_board_is_not_found(house: Any) -> None:
    with pytest.raises(NotFound):
        await house.boards.get(house.me, BoardGet(board_id="none"))


async def test_boards_are_listed_in_pages(house: Any) -> None:
    for name in "abc":
        await house.boards.create(house.me, BoardCreate(name=name))
    first = await house.boards.list(house.me, BoardList(limit=2))
    second = await house.boards.list(house.me, BoardList(limit=2, cursor=first.next_cursor))
    assert [board.name for board in [*first.boards, *second.boards]] == ["a", "b", "c"]


async def test_an_update_changes_only_the_fields_it_names(house: Any, board: Any) -> None:
    await house.boards.update(house.me, BoardUpdate(board_id=board.board.id, description="later"))
    found = (await house.boards.get(house.me, BoardGet(board_id=board.board.id))).board
    assert (found.name, found.description, found.version) == ("Work", "later", 2)


async def test_an_update_of_an_old_version_is_a_conflict(house: Any, board: Any) -> None:
    request = BoardUpdate(board_id=board.board.id, name="x", expected_version=7)
    with pytest.raises(Conflict) as caught:
        await house.boards.update(house.me, request)
    assert caught.value.details["version"] == 1


async def test_an_update_that_changes_nothing_tells_nobody(house: Any, board: Any) -> None:
    await house.boards.update(house.me, BoardUpdate(board_id=board.board.id, name="Work"))
    assert "board.updated" not in actions(house)


async def test_a_deleted_board_takes_its_columns_and_tasks_along(house: Any, board: Any) -> None:
    await house.tasks.create(house.me, TaskCreate(board_id=board.board.id, title="t", description=""))
    await house.boards.delete(house.me, BoardDelete(board_id=board.board.id))
    assert (await house.store.count(Column), await house.store.count(Task)) == (0, 0)


async def test_whoever_follows_a_task_hears_that_it_goes_with_its_board(house: Any, board: Any) -> None:
    request = TaskCreate(board_id=board.board.id, title="t", description="")
    made = [(await house.tasks.create(house.me, request)).task.id for _ in range(2)]
    await house.boards.delete(house.me, BoardDelete(board_id=board.board.id))
    gone = [item for item in house.events if item.action == "task.deleted"]
    assert [f"task:{id}" in item.topics() for id, item in zip(sorted(made), gone, strict=True)] == [True, True]
    assert actions(house)[-1] == "board.deleted"


async def test_a_column_is_put_between_others(house: Any, board: Any) -> None:
    await house.columns.create(house.me, ColumnCreate(board_id=board.board.id, name="Review", position=2))
    names = [column.name for column in await columns(house, board)]
    assert names == ["To Do", "In Progress", "Review", "Blocked", "Done"]


async def test_a_second_column_for_a_state_is_a_conflict(house: Any, board: Any) -> None:
    with pytest.raises(Conflict):
        await house.columns.create(house.me, ColumnCreate(board_id=board.board.id, name="x", state="TODO"))


async def test_columns_stay_dense_when_one_goes(house: Any, board: Any) -> None:
    await house.columns.delete(house.me, ColumnDelete(column_id=board.columns[1].id))
    assert [column.position for column in await columns(house, board)] == [0, 1, 2]


async def test_a_column_with_tasks_is_not_deleted(house: Any, board: Any) -> None:
    await house.tasks.create(house.me, TaskCreate(board_id=board.board.id, title="t", description=""))
    with pytest.raises(Conflict) as caught:
        await house.columns.delete(house.me, ColumnDelete(column_id=board.columns[0].id))
    assert caught.value.details["tasks"] == 1


async def put_into(house: Any, column: Column, *titles: str) -> None:
    for title in titles:
        request = TaskCreate(board_id=column.board_id, title=title, description="", column_id=column.id)
        await house.tasks.create(house.me, request)


async def test_a_forced_deletion_moves_tasks_without_a_column_for_their_state_to_one_for_no_state(
    house: Any, board: Any
) -> None:
    todo, _, blocked, _ = await columns(house, board)
    request = ColumnCreate(board_id=board.board.id, name="Any", position=0)
    anything = (await house.columns.create(house.me, request)).column
    await put_into(house, anything, "a")
    await put_into(house, blocked, "b", "c")
    reply = await house.columns.delete(house.me, ColumnDelete(column_id=blocked.id, force=True))
    assert msgspec.to_builtins(reply.removed) == {
        "tasks_moved": 2,
        "moved_to": [{"column_id": anything.id, "name": "Any", "tasks": 2}],
    }
    moved = (await house.tasks.list(house.me, TaskList(column_id=anything.id))).tasks
    assert [(task.title, task.position, task.state) for task in moved] == [
        ("a", 0, "TODO"),
        ("b", 1, "BLOCKED"),
        ("c", 2, "BLOCKED"),
    ]
    history = (await house.tasks.events(house.me, TaskEvents(task_id=moved[1].id))).events
    assert [line.event_type for line in history] == ["created", "moved"]
    assert history[1].metadata["column_id"] == {"old": blocked.id, "new": anything.id}
    assert (await house.tasks.list(house.me, TaskList(column_id=todo.id))).tasks == []


async def test_a_forced_deletion_moves_each_task_to_the_column_for_its_state(house: Any, board: Any) -> None:
    todo, *_, finished = await columns(house, board)
    request = ColumnCreate(board_id=board.board.id, name="Any", position=0)
    anything = (await house.columns.create(house.me, request)).column
    await put_into(house, todo, "first")
    await put_into(house, finished, "a", "b")
    for task in (await house.tasks.list(house.me, TaskList(column_id=finished.id))).tasks:
        await house.tasks.move(house.me, TaskMove(task_id=task.id, column_id=anything.id, position=9))
    await put_into(house, anything, "c")
    reply = await house.columns.delete(house.me, ColumnDelete(column_id=anything.id, force=True))
    assert [(part.column_id, part.tasks) for part in reply.removed.moved_to] == [(finished.id, 2), (todo.id, 1)]
    there = {
        column.name: [
            (task.title, task.position, task.state)
            for task in (await house.tasks.list(house.me, TaskList(column_id=column.id))).tasks
        ]
        for column in (todo, finished)
    }
    assert there == {
        "To Do": [("first", 0, "TODO"), ("c", 1, "TODO")],
        "Done": [("a", 0, "COMPLETED"), ("b", 1, "COMPLETED")],
    }


async def test_a_finished_task_whose_column_goes_is_in_none_rather_than_in_that_for_new_ones(
    house: Any, board: Any
) -> None:
    finished = (await columns(house, board))[-1]
    await put_into(house, finished, "a")
    reply = await house.columns.delete(house.me, ColumnDelete(column_id=finished.id, force=True))
    assert [(part.column_id, part.name, part.tasks) for part in reply.removed.moved_to] == [(None, None, 1)]
    [task] = (await house.tasks.list(house.me, TaskList(board_id=board.board.id))).tasks
    assert (task.column_id, task.position, task.state) == (None, 0, "COMPLETED")


async def test_the_last_column_leaves_its_tasks_without_one(house: Any, board: Any) -> None:
    made = await house.tasks.create(house.me, TaskCreate(board_id=board.board.id, title="a", description=""))
    for column in reversed(await columns(house, board)):
        reply = await house.columns.delete(house.me, ColumnDelete(column_id=column.id, force=True))
    assert [(part.column_id, part.tasks) for part in reply.removed.moved_to] == [(None, 1)]
    task = await house.store.get(Task, made.task.id)
    assert (task.column_id, task.position) == (None, 0)


async def test_a_deletion_says_what_went_with_the_board(house: Any, board: Any) -> None:
    for title in "ab":
        await house.tasks.create(house.me, TaskCreate(board_id=board.board.id, title=title, description=""))
    reply = await house.boards.delete(house.me, BoardDelete(board_id=board.board.id))
    counts = {"columns": 4, "tasks": 2, "agents": 0, "stopped": 0, "workspaces_left": 0}
    assert msgspec.to_builtins(reply.removed) == counts


async def test_null_clears_what_may_be_empty(house: Any, board: Any) -> None:
    await house.columns.update(house.me, ColumnUpdate(column_id=board.columns[0].id, state=None))
    assert (await columns(house, board))[0].state is None


async def test_concurrent_moves_of_columns_stay_dense(house: Any, board: Any) -> None:
    async with anyio.create_task_group() as tasks:
        for position, column in enumerate(reversed(board.columns)):
            tasks.start_soon(house.columns.move, house.me, ColumnMove(column_id=column.id, position=position))
    assert [column.position for column in await columns(house, board)] == [0, 1, 2, 3]
