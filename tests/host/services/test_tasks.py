from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from kandev_host.errors import Conflict, NotFound, PayloadTooLarge, ValidationFailed
from kandev_host.interfaces import Put
from kandev_host.models import Task, TaskEvent
from kandev_host.protocol.actions.boards import BoardCreate, ColumnUpdate
from kandev_host.protocol.actions.tasks import (
    TaskCreate,
    TaskDelete,
    TaskEvents,
    TaskGet,
    TaskList,
    TaskMove,
    TaskStateChange,
    TaskUpdate,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def board(house: Any) -> Any:
    return await house.boards.create(house.me, BoardCreate(name="Work"))


async def make(house: Any, board: Any, title: str = "t", **fields: Any) -> Task:
    request = TaskCreate(board_id=board.board.id, title=title, description="", **fields)
    task: Task = (await house.tasks.create(house.me, request)).task
    return task


async def titles(house: Any, column_id: str) -> list[tuple[str, int]]:
    found = await house.tasks.list(house.me, TaskList(column_id=column_id))
    return [(task.title, task.position) for task in found.tasks]


async def audit(house: Any, task: Task) -> list[TaskEvent]:
    return list((await house.store.find(TaskEvent, [("task_id", "=", task.id)])).rows)


async def test_a_new_task_waits_in_the_column_for_todo(house: Any, board: Any) -> None:
    task = await make(house, board)
    assert (task.state, task.column_id, task.position) == ("TODO", board.columns[0].id, 0)


async def test_new_tasks_in_a_row_read_their_board_once(
    house: Any, board: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(house, board, "first")
    with monkeypatch.context() as unread:
        unread.setattr(house.store, "find", None)
        unread.setattr(house.store, "count", None)
        for number in range(3):
            await make(house, board, str(number))
    todo = board.columns[0].id
    assert await titles(house, todo) == [("first", 0), ("0", 1), ("1", 2), ("2", 3)]


async def test_a_new_task_heeds_what_changed_on_its_board_since_the_last(house: Any, board: Any) -> None:
    """A task that moved, one that was deleted, a column with another limit."""
    todo, elsewhere = board.columns[0], board.columns[1]
    tasks = [await make(house, board, str(number)) for number in range(3)]
    await house.tasks.move(house.me, TaskMove(task_id=tasks[0].id, column_id=elsewhere.id, position=0))
    await make(house, board, "3")
    await house.tasks.delete(house.me, TaskDelete(task_id=tasks[1].id))
    await make(house, board, "4")
    assert await titles(house, todo.id) == [("2", 0), ("3", 1), ("4", 2)]
    await house.columns.update(house.me, ColumnUpdate(column_id=todo.id, wip_limit=3))
    with pytest.raises(Conflict, match="no more than 3"):
        await make(house, board, "5")


async def test_a_task_made_in_a_column_has_the_state_it_stands_for(house: Any, board: Any) -> None:
    task = await make(house, board, column_id=board.columns[3].id)
    assert (task.state, task.completed_at) == ("COMPLETED", task.created_at)


async def test_the_event_of_a_new_task_wraps_the_whole_row(house: Any, board: Any) -> None:
    task = await make(house, board)
    told = next(item for item in house.events if item.action == "task.created")
    assert msgspec.json.decode(told.payload)["task"] == msgspec.json.decode(msgspec.json.encode(task))


async def test_a_column_of_another_board_is_refused_by_name(house: Any, board: Any) -> None:
    other = await house.boards.create(house.me, BoardCreate(name="Other"))
    with pytest.raises(ValidationFailed) as caught:
        await make(house, board, column_id=other.columns[0].id)
    assert caught.value.details["field"] == "column_id"


async def test_an_unknown_column_is_not_found(house: Any, board: Any) -> None:
    with pytest.raises(NotFound):
        await make(house, board, column_id="none")


async def test_an_unknown_board_is_not_found(house: Any) -> None:
    with pytest.raises(NotFound):
        await house.tasks.create(house.me, TaskCreate(board_id="none", title="t", description=""))


@pytest.mark.parametrize(
    "url", ["-oProxyCommand=x", "ext::sh -c id", "https://me:secret@h/x", "relative/path", "ftp://h/x", "a\nb"]
)
async def test_a_repository_that_cannot_be_one_is_refused_at_creation(house: Any, board: Any, url: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await make(house, board, repository_url=url)
    assert caught.value.details["field"] == "repository_url"
    assert "secret" not in caught.value.message


async def test_an_agent_type_that_is_not_there_is_refused_with_the_known_ones(house: Any, board: Any) -> None:
    with pytest.raises(NotFound) as caught:
        await make(house, board, agent_type="nobody")
    assert caught.value.details["known"] == house.agent_types.names()
    task = await make(house, board)
    with pytest.raises(NotFound):
        await house.tasks.update(house.me, TaskUpdate(task_id=task.id, agent_type="nobody"))
    assert await house.store.count(Task, [("agent_type", "=", "nobody")]) == 0


async def test_a_folder_that_is_no_repository_is_refused_as_at_launch(
    house: Any, board: Any, tmp_path: Path, repository: Path
) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ValidationFailed) as caught:
            await make(house, board, repository_url=str(folder))
        assert caught.value.details["field"] == "repository_url"
        task = await make(house, board, repository_url=str(repository))
        with pytest.raises(ValidationFailed):
            await house.tasks.update(house.me, TaskUpdate(task_id=task.id, repository_url=str(folder)))


async def test_what_a_task_has_already_may_have_gone(house: Any, board: Any, repository: Path) -> None:
    """A client that sends all fields can change the others."""
    task = await make(house, board, repository_url=str(repository))
    await house.journal.record(Put(msgspec.structs.replace(task, agent_type="nobody")))
    shutil.rmtree(repository)
    fields = {"agent_type": "nobody", "repository_url": str(repository), "title": "Other"}
    changed = await house.tasks.update(house.me, TaskUpdate(task_id=task.id, **fields))
    assert changed.task.title == "Other"


async def test_oversized_metadata_is_refused(house: Any, board: Any) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        await make(house, board, metadata={"x": "y" * 70_000})
    assert caught.value.details["field"] == "metadata"


async def test_an_update_is_audited_with_old_and_new(house: Any, board: Any) -> None:
    task = await make(house, board)
    await house.tasks.update(house.me, TaskUpdate(task_id=task.id, priority=9))
    line = (await audit(house, task))[-1]
    assert (line.event_type, line.metadata, line.created_by) == (
        "updated",
        {"changed": {"priority": {"old": 0, "new": 9}}},
        house.me.id,
    )


async def test_an_update_of_an_old_version_writes_nothing(house: Any, board: Any) -> None:
    task = await make(house, board)
    with pytest.raises(Conflict):
        await house.tasks.update(house.me, TaskUpdate(task_id=task.id, title="x", expected_version=2))
    assert await house.store.get(Task, task.id) == task


async def test_a_state_change_moves_the_task_to_its_column(house: Any, board: Any) -> None:
    task = await make(house, board)
    changed = (await house.tasks.state(house.me, TaskStateChange(task_id=task.id, state="IN_PROGRESS"))).task
    assert (changed.column_id, changed.state, changed.started_at is None) == (
        board.columns[1].id,
        "IN_PROGRESS",
        False,
    )


async def test_a_state_change_is_audited(house: Any, board: Any) -> None:
    task = await make(house, board)
    await house.tasks.state(house.me, TaskStateChange(task_id=task.id, state="BLOCKED", reason="a key"))
    line = (await audit(house, task))[-1]
    assert (line.old_state, line.new_state, line.metadata) == (
        "TODO",
        "BLOCKED",
        {
            "reason": "a key",
            "column_id": {"old": task.column_id, "new": board.columns[2].id},
            "position": {"old": 0, "new": 0},
        },
    )


@pytest.mark.parametrize(("first", "second"), [("COMPLETED", "IN_PROGRESS"), ("FAILED", "BLOCKED"), ("TODO", "TODO")])
async def test_a_transition_that_is_not_allowed_writes_nothing(house: Any, board: Any, first: Any, second: Any) -> None:
    task = await make(house, board)
    if first != "TODO":
        task = (await house.tasks.state(house.me, TaskStateChange(task_id=task.id, state=first))).task
    head = house.journal.state.head
    with pytest.raises(Conflict) as caught:
        await house.tasks.state(house.me, TaskStateChange(task_id=task.id, state=second))
    assert caught.value.details["state"] == first
    assert (await house.store.get(Task, task.id), house.journal.state.head) == (task, head)


async def test_moving_to_a_column_with_a_state_changes_the_state(house: Any, board: Any) -> None:
    task = await make(house, board)
    request = TaskMove(task_id=task.id, column_id=board.columns[3].id, position=0)
    assert (await house.tasks.move(house.me, request)).task.state == "COMPLETED"


async def test_a_failed_task_can_be_reordered_where_it_is(house: Any, board: Any) -> None:
    task = await make(house, board)
    await make(house, board, "other")
    await house.tasks.state(house.me, TaskStateChange(task_id=task.id, state="FAILED"))
    request = TaskMove(task_id=task.id, column_id=board.columns[0].id, position=1)
    moved = (await house.tasks.move(house.me, request)).task
    assert (moved.state, moved.position) == ("FAILED", 1)


async def test_a_full_column_refuses_another_task(house: Any, board: Any) -> None:
    await house.columns.update(house.me, ColumnUpdate(column_id=board.columns[0].id, wip_limit=1))
    await make(house, board)
    with pytest.raises(Conflict) as caught:
        await make(house, board, "second")
    assert caught.value.details["wip_limit"] == 1


async def test_a_full_column_refuses_a_person_who_changes_the_state(house: Any, board: Any) -> None:
    await house.columns.update(house.me, ColumnUpdate(column_id=board.columns[2].id, wip_limit=1))
    tasks = [await make(house, board) for _ in range(2)]
    await house.tasks.state(house.me, TaskStateChange(task_id=tasks[0].id, state="BLOCKED"))
    with pytest.raises(Conflict) as caught:
        await house.tasks.state(house.me, TaskStateChange(task_id=tasks[1].id, state="BLOCKED"))
    assert caught.value.details["state"] == "full"


async def test_a_full_column_takes_what_an_agent_leaves_there(house: Any, board: Any) -> None:
    await house.columns.update(house.me, ColumnUpdate(column_id=board.columns[2].id, wip_limit=1))
    tasks = [await make(house, board, str(number)) for number in range(2)]
    for task in tasks:
        await house.tasks.transition(task.id, "BLOCKED", actor="agent", reason="it refused")
    assert await titles(house, board.columns[2].id) == [("0", 0), ("1", 1)]


async def test_two_tasks_that_come_to_wait_for_each_other_at_once_make_no_ring(house: Any, board: Any) -> None:
    first, second = await make(house, board), await make(house, board)
    outcomes: list[str] = []

    async def wait_for(task: Task, blocker: Task) -> None:
        try:
            await house.tasks.update(house.me, TaskUpdate(task_id=task.id, blocked_by=[blocker.id]))
        except Conflict as error:
            outcomes.append(error.details["state"])
        else:
            outcomes.append("done")

    async with anyio.create_task_group() as both:
        both.start_soon(wait_for, first, second)
        both.start_soon(wait_for, second, first)
    assert sorted(outcomes) == ["cycle", "done"]


async def test_nothing_is_started_for_a_task_whose_board_is_about_to_go(house: Any, board: Any) -> None:
    task = await make(house, board)
    for id in (task.id, board.board.id):
        with house.tasks._runs.closing(id), pytest.raises(Conflict) as caught:
            await house.tasks.transition(task.id, "IN_PROGRESS", actor="host", assigned_agent_id="a")
        assert caught.value.details["state"] == "deleting"


async def test_concurrent_moves_stay_dense(house: Any, board: Any) -> None:
    made = [await make(house, board, str(number)) for number in range(6)]
    column = board.columns[0].id
    async with anyio.create_task_group() as tasks:
        for task in made:
            tasks.start_soon(house.tasks.move, house.me, TaskMove(task_id=task.id, column_id=column, position=0))
    found = await titles(house, column)
    assert [position for _, position in found] == list(range(6))
    assert {title for title, _ in found} == {"0", "1", "2", "3", "4", "5"}


async def test_deleting_closes_the_gap(house: Any, board: Any) -> None:
    made = [await make(house, board, str(number)) for number in range(3)]
    await house.tasks.delete(house.me, TaskDelete(task_id=made[0].id))
    assert await titles(house, board.columns[0].id) == [("1", 0), ("2", 1)]


async def test_the_history_says_who_changed_what_and_when_oldest_first_in_pages(house: Any, board: Any) -> None:
    task = await make(house, board)
    await house.tasks.update(house.me, TaskUpdate(task_id=task.id, priority=3))
    await house.tasks.state(house.me, TaskStateChange(task_id=task.id, state="BLOCKED", reason="why"))
    first = await house.tasks.events(house.me, TaskEvents(task_id=task.id, limit=2))
    rest = await house.tasks.events(house.me, TaskEvents(task_id=task.id, limit=2, cursor=first.next_cursor))
    lines = [*first.events, *rest.events]
    assert [line.event_type for line in lines] == ["created", "updated", "state_changed"]
    assert lines[1].metadata == {"changed": {"priority": {"old": 0, "new": 3}}}
    assert (lines[2].old_state, lines[2].new_state, lines[2].metadata["reason"]) == ("TODO", "BLOCKED", "why")
    assert [line.version for line in lines] == [1, 2, 3]
    assert {line.created_by for line in lines} == {house.me.id}
    assert rest.next_cursor is None


async def test_the_history_is_in_order_whatever_the_clock_did(house: Any, board: Any) -> None:
    """P17: a line that was written at an earlier time than the one before it still comes after it."""
    task = await make(house, board)
    early = task.created_at - timedelta(days=1)
    line = TaskEvent(task_id=task.id, version=2, event_type="updated", created_by="me", created_at=early)
    await house.journal.record(Put(line))
    found = await house.tasks.events(house.me, TaskEvents(task_id=task.id))
    assert [line.version for line in found.events] == [1, 2]


async def test_a_move_in_a_large_column_writes_only_the_moved_task_itself(house: Any, board: Any) -> None:
    column = board.columns[0]
    tasks = [
        Task(board_id=board.board.id, column_id=column.id, position=n, title=str(n), description="", created_by="me")
        for n in range(1000)
    ]
    await house.journal.record(*(Put(task) for task in tasks))
    await house.tasks.move(house.me, TaskMove(task_id=tasks[999].id, column_id=column.id, position=0))
    found = await house.tasks.list(house.me, TaskList(column_id=column.id, limit=500))
    assert [(task.title, task.version) for task in found.tasks[:3]] == [("999", 2), ("0", 1), ("1", 1)]
    assert [task.position for task in found.tasks] == list(range(500))


async def test_filters_hold_together(house: Any, board: Any) -> None:
    await make(house, board, "fix login", priority=3)
    await make(house, board, "fix logout", priority=7)
    await make(house, board, "write docs", priority=9)
    found = await house.tasks.list(house.me, TaskList(board_id=board.board.id, query="fix", priority_min=5))
    assert [task.title for task in found.tasks] == ["fix logout"]


async def test_an_unknown_blocker_is_not_found_by_its_place(house: Any, board: Any) -> None:
    first = await make(house, board)
    with pytest.raises(NotFound) as caught:
        await make(house, board, blocked_by=[first.id, "none"])
    assert caught.value.details["field"] == "blocked_by[1]"


async def test_tasks_never_wait_for_each_other_in_a_ring(house: Any, board: Any) -> None:
    first = await make(house, board)
    second = await make(house, board, blocked_by=[first.id])
    third = await make(house, board, blocked_by=[second.id])
    with pytest.raises(Conflict) as caught:
        await house.tasks.update(house.me, TaskUpdate(task_id=first.id, blocked_by=[third.id]))
    assert caught.value.details["state"] == "cycle"


async def test_a_deleted_task_is_not_found(house: Any, board: Any) -> None:
    task = await make(house, board)
    await house.tasks.delete(house.me, TaskDelete(task_id=task.id))
    with pytest.raises(NotFound):
        await house.tasks.get(house.me, TaskGet(task_id=task.id))
