"""What a deletion takes along, and when: first the rows, in one commit, and behind it the folders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.errors import StorageFull, Unavailable
from kandev_host.interfaces import ProcessSpec, Remove
from kandev_host.models import Board, Task, Workspace
from kandev_host.protocol.actions.boards import BoardCreate, BoardDelete
from kandev_host.protocol.actions.tasks import TaskDelete
from kandev_host.settings import Settings

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
Delete = Callable[[Any, Task], Awaitable[Any]]


def _task(house: Any, task: Task) -> Awaitable[Any]:
    answer: Awaitable[Any] = house.tasks.delete(house.me, TaskDelete(task_id=task.id))
    return answer


def _task_forced(house: Any, task: Task) -> Awaitable[Any]:
    answer: Awaitable[Any] = house.tasks.delete(house.me, TaskDelete(task_id=task.id, force=True))
    return answer


def _board(house: Any, task: Task) -> Awaitable[Any]:
    answer: Awaitable[Any] = house.boards.delete(house.me, BoardDelete(board_id=task.board_id))
    return answer


every_way = pytest.mark.parametrize("delete", [_task, _task_forced, _board])


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Task], Path]:
    return lambda task: tmp_path / "data/workspaces" / task.id


async def with_workspace(house: Any, make_desk: Any) -> Task:
    board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
    desk = make_desk(house, board.id)
    workspace = await desk.workspace(None)
    task: Task = await house.store.get(Task, workspace.id)
    return task


@every_way
async def test_folders_go_with_their_task(house: Any, make_desk: Any, folder: Any, delete: Delete) -> None:
    task = await with_workspace(house, make_desk)
    assert folder(task).is_dir()
    await delete(house, task)
    assert not folder(task).exists()
    assert await house.store.get(Workspace, task.id) is None


@every_way
async def test_a_deletion_that_the_store_refuses_removes_no_folder(
    house: Any, make_desk: Any, folder: Any, delete: Delete, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await with_workspace(house, make_desk)
    record = house.journal.record

    async def full(*changes: Any, **options: Any) -> Any:
        if any(isinstance(change, Remove) and change.kind in (Task, Board) for change in changes):
            raise StorageFull("The disk is full")
        return await record(*changes, **options)

    monkeypatch.setattr(house.journal, "record", full)
    with pytest.raises(StorageFull):
        await delete(house, task)
    assert folder(task).is_dir()
    look = ProcessSpec(workspace_id=task.id, command=("test", "-d", ".git"))
    assert (await house.runtimes["bwrap"].run(look)).exit_code == 0
    assert await house.store.get(Task, task.id) == task
    assert await house.store.get(Workspace, task.id) is not None


@every_way
async def test_a_folder_that_a_host_left_which_died_behind_the_commit_goes_at_the_next_start(
    open_house: Any, tmp_path: Path, make_desk: Any, folder: Any, delete: Delete, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path / "data", [], Settings()) as house:
        task = await with_workspace(house, make_desk)
        with anyio.CancelScope() as host:

            async def die(_task_id: str) -> None:
                host.cancel()
                await anyio.sleep(DEADLINE_S)

            monkeypatch.setattr(house.workspaces, "discard", die)
            await delete(house, task)
        assert host.cancelled_caught
    assert folder(task).is_dir()
    async with open_house(tmp_path / "data", [], Settings()) as house:
        assert await house.store.get(Task, task.id) is None
        assert (await house.recovery.reconcile())["workspaces_removed"] == [task.id]
        assert not folder(task).exists()
        assert (await house.recovery.reconcile())["workspaces_removed"] == []


async def test_a_workspace_whose_runtime_is_not_there_keeps_its_task_unless_forced(
    house: Any, make_desk: Any, folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await with_workspace(house, make_desk)
    with monkeypatch.context() as without:
        without.setattr(house.workspaces, "runtimes", {})
        with pytest.raises(Unavailable) as caught:
            await _task(house, task)
        assert caught.value.details["force"] == "leaves its workspace behind"
        assert await house.store.get(Task, task.id) == task
        removed = (await _task_forced(house, task)).removed
    assert (removed.workspace, folder(task).is_dir()) == (False, True)
    assert (await house.recovery.reconcile())["workspaces_removed"] == [task.id]
    assert not folder(task).exists()
