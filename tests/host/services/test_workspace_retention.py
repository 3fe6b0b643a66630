"""Workspaces that go by themselves: late, of tasks that are over, and never with work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import force_setattr, replace

from kandev_host import intervals
from kandev_host.errors import Unavailable
from kandev_host.interfaces import PlaceUse, Put
from kandev_host.models import QueueEntry, Task, TaskState, Workspace, now
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.services import workspace_retention
from kandev_host.settings import Settings, WorkspaceSettings

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0
DEADLINE_S = 60.0


@pytest.fixture
def open_desk(open_house: Any, make_desk: Any, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def opened(**fields: Any) -> AsyncIterator[Any]:
        settings = Settings(workspace=WorkspaceSettings(**fields))
        async with open_house(tmp_path / "data", [], settings) as house:
            board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
            yield make_desk(house, board.id)

    return opened


async def aged(desk: Any, days: float, state: TaskState = "COMPLETED") -> Workspace:
    """A workspace whose task came into this state so many days ago."""
    workspace: Workspace = await desk.workspace(None)
    at = now() - timedelta(days=days)
    task = await desk.house.store.get(Task, workspace.id)
    workspace = replace(workspace, created_at=at)
    await desk.house.journal.record(Put(replace(task, state=state, updated_at=at)), Put(workspace))
    return workspace


async def left(desk: Any) -> set[str]:
    await desk.house.workspace_retention.look()
    return {row.id for row in (await desk.house.store.find(Workspace)).rows}


async def test_a_workspace_goes_when_its_task_has_been_over_for_so_long(open_desk: Any) -> None:
    async with open_desk(kept_s=DAY_S) as desk:
        await aged(desk, 2)
        young = await aged(desk, 0.5)
        assert await left(desk) == {young.id}


@pytest.mark.parametrize("state", ["TODO", "IN_PROGRESS", "BLOCKED"])
async def test_the_workspace_of_a_task_that_is_not_over_stays(open_desk: Any, state: TaskState) -> None:
    async with open_desk(kept_s=DAY_S, quota_bytes=1) as desk:
        desk.house.workspaces.on_new = None
        workspace = await aged(desk, 99, state)
        assert await left(desk) == {workspace.id}


async def test_work_that_is_nowhere_else_stays(open_desk: Any) -> None:
    async with open_desk(kept_s=DAY_S) as desk:
        workspace = await aged(desk, 99)
        await desk.sh(workspace, "echo 1 > new.txt")
        assert await left(desk) == {workspace.id}


async def test_what_somebody_needs_stays(open_desk: Any) -> None:
    async with open_desk(kept_s=DAY_S) as desk:
        workspace = await aged(desk, 99)
        await desk.house.journal.record(Put(QueueEntry(id=workspace.id, board_id=desk.board_id, created_by="me")))
        assert await left(desk) == {workspace.id}


async def test_what_cannot_be_known_stays(open_desk: Any) -> None:
    async with open_desk(kept_s=DAY_S) as desk:
        workspace = await aged(desk, 99)
        await desk.sh(workspace, "rm -rf .git", pin_git=False)
        assert await left(desk) == {workspace.id}


async def test_unless_the_settings_say_workspaces_stay_for_ever(open_desk: Any) -> None:
    async with open_desk() as desk:
        workspace = await aged(desk, 9999)
        assert await left(desk) == {workspace.id}


async def test_a_shorter_interval_counts_although_a_longer_one_was_begun(
    open_house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "LOOK_S", 0.02)
    table = WorkspaceSettings(kept_s=DAY_S, retention_interval_s=DAY_S)
    async with open_house(tmp_path / "data", [], Settings(workspace=table)) as house:
        looked, begun = anyio.Event(), anyio.Event()

        async def look() -> None:
            looked.set()

        async def until_due(interval_s: Callable[[], float]) -> None:
            begun.set()
            await intervals.until_due(interval_s)

        monkeypatch.setattr(house.workspace_retention, "look", look)
        monkeypatch.setattr(workspace_retention, "until_due", until_due)
        with anyio.fail_after(DEADLINE_S):
            async with house.workspace_retention:
                await begun.wait()
                force_setattr(table, "retention_interval_s", 0.01)
                await looked.wait()


async def test_beyond_the_quota_the_least_recently_used_goes_first(
    open_desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_desk(quota_bytes=250) as desk:
        monkeypatch.setattr(desk.house.runtimes["bwrap"], "use", hundred_bytes)
        young, _ = await aged(desk, 1), await aged(desk, 3)
        middle = await aged(desk, 2)
        assert await left(desk) == {young.id, middle.id}


async def test_beyond_the_quota_there_is_no_new_workspace(open_desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_desk(quota_bytes=150) as desk:
        monkeypatch.setattr(desk.house.runtimes["bwrap"], "use", hundred_bytes)
        await desk.workspace(None)
        await desk.workspace(None)
        with pytest.raises(Unavailable, match="200 of 150 bytes") as caught:
            await desk.workspace(None)
        assert "kandev-host workspace delete" in caught.value.details["fix"]


async def hundred_bytes(_workspace_id: str) -> PlaceUse:
    return PlaceUse(bytes=100, inodes=1)
