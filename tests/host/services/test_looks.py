"""What changed in a workspace since a moment: by the program alone, and by the jail that stays beside a workspace."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.models import Workspace
from kandev_host.protocol.actions.snapshots import WorkspaceSnapshot
from kandev_host.services import looks
from kandev_host.services.jailed.look import Seen
from kandev_host.services.jailed.walk import Budget, OutOfTime

pytestmark = pytest.mark.anyio
LIMIT = 1000


class Folder:
    """A folder, and the program that looks at it."""

    def __init__(self, path: Path, file_bytes: int = 1000) -> None:
        self.path = path
        self.seen = Seen("n", file_bytes)

    def moment(self) -> str:
        return str(self.look(None)["moment"])

    def look(self, moment: str | None, limit: int = LIMIT, **bounds: Any) -> dict[str, Any]:
        bounds = {"budget_s": 60.0, "max_files": 1000, **bounds}
        cut = self.seen.look(str(self.path), **bounds)
        return {"known": False} if cut else self.seen.since(moment, limit)

    def changed(self, moment: str) -> list[str]:
        reply = self.look(moment)
        assert reply["count"] == len(reply["paths"])
        return list(reply["paths"])


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "workspace"
    path.mkdir()
    for name in ("a", "b"):
        (path / name).write_text(name)
    return Folder(path)


def test_new_changed_and_deleted_files_are_told(folder: Folder) -> None:
    before = folder.moment()
    (folder.path / "new").write_text("1")
    (folder.path / "a").write_text("2")
    (folder.path / "b").unlink()
    assert folder.changed(before) == ["a", "b", "new"]


def test_a_change_of_the_same_length_and_times_is_told(folder: Folder) -> None:
    before, was = folder.moment(), (folder.path / "a").stat()
    (folder.path / "a").write_text("x")
    os.utime(folder.path / "a", ns=(was.st_atime_ns, was.st_mtime_ns))
    assert folder.changed(before) == ["a"]


def test_what_was_only_touched_or_has_its_content_again_did_not_change(folder: Folder) -> None:
    before = folder.moment()
    (folder.path / "a").touch()
    (folder.path / "b").write_text("else")
    between = folder.moment()
    (folder.path / "b").write_text("b")
    assert folder.changed(before) == []
    assert folder.changed(between) == ["b"]


def test_a_link_and_the_right_to_execute_count(folder: Folder) -> None:
    before = folder.moment()
    (folder.path / "a").chmod(0o755)
    (folder.path / "b").unlink()
    (folder.path / "b").symlink_to("b")
    assert folder.changed(before) == ["a", "b"]


def test_each_moment_has_its_own_answer(folder: Folder) -> None:
    moments = []
    for number in range(4):
        moments.append(folder.moment())
        (folder.path / f"new{number}").write_text("1")
    assert [folder.changed(moment) for moment in moments] == [
        [f"new{number}" for number in range(first, 4)] for first in range(4)
    ]


def test_what_gitignore_leaves_out_does_not_count(folder: Folder) -> None:
    (folder.path / ".gitignore").write_text("*.log\n")
    before = folder.moment()
    (folder.path / "x.log").write_text("1")
    assert folder.changed(before) == []


def test_a_file_too_large_to_be_read_changes_with_its_times(folder: Folder) -> None:
    (folder.path / "large").write_bytes(bytes(2000))
    before = folder.moment()
    assert folder.changed(before) == []
    (folder.path / "large").write_bytes(b"x" * 2000)
    assert folder.changed(before) == ["large"]


def test_moments_of_another_program_and_wrong_ones_are_unknown(folder: Folder) -> None:
    folder.moment()
    for moment in ("other.1", "n.2", "n.0", "n.", "n.-1", "n.x", "x"):
        assert folder.look(moment) == {"known": False}


def test_a_moment_too_long_ago_is_unknown(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kandev_host.services.jailed.look.REMEMBERED", 2)
    first = folder.moment()
    for number in range(2):
        (folder.path / f"new{number}").write_text("1")
        folder.moment()
    assert len(folder.changed(first)) == 2
    (folder.path / "new2").write_text("1")
    assert folder.look(first) == {"known": False}


def test_a_look_that_was_cut_is_unknown_and_the_next_one_is_not(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Over(Budget):
        def start(self) -> None:
            raise OutOfTime

    before = folder.moment()
    (folder.path / "new").write_text("1")
    assert folder.look(before, max_files=2) == {"known": False}
    with monkeypatch.context() as patch:
        patch.setattr("kandev_host.services.jailed.look.Budget", Over)
        assert folder.look(before) == {"known": False}
    assert folder.changed(before) == ["new"]


def test_so_many_paths_are_named_and_all_are_counted(folder: Folder) -> None:
    before = folder.moment()
    for number in range(5):
        (folder.path / f"new{number}").write_text("1")
    reply = folder.look(before, limit=2)
    assert (reply["paths"], reply["count"]) == (["new0", "new1"], 5)


# --- the jail that stays ----------------------------------------------------------------------------------------------


@pytest.fixture
async def workspace(desk: Any, repository: Path) -> Workspace:
    made: Workspace = await desk.workspace(repository)
    return made


async def jails(desk: Any) -> list[str]:
    return [owned.ref for owned in await desk.house.runtimes["bwrap"].list_owned()]


async def test_all_looks_at_a_workspace_are_made_in_one_jail(desk: Any, workspace: Workspace) -> None:
    first = await desk.house.looks.changed_since(workspace.id, None)
    (jail,) = await jails(desk)
    await desk.sh(workspace, "echo x > x")
    assert (await desk.house.looks.changed_since(workspace.id, first.moment)).paths == ("x",)
    assert await jails(desk) == [jail]


async def test_what_a_snapshot_stored_is_the_same_for_a_look(desk: Any, workspace: Workspace) -> None:
    await desk.house.snapshots.take(desk.house.me, WorkspaceSnapshot(task_id=workspace.id))
    first = await desk.house.looks.changed_since(workspace.id, None)
    await desk.sh(workspace, "touch a.txt; echo x > b.txt")
    assert (await desk.house.looks.changed_since(workspace.id, first.moment)).paths == ("b.txt",)


async def test_the_jail_ends_before_the_workspace_goes(desk: Any, workspace: Workspace) -> None:
    await desk.house.looks.changed_since(workspace.id, None)
    assert await desk.house.workspaces.remove(workspace.id)
    assert await jails(desk) == []
    assert await desk.house.looks.changed_since(workspace.id, None) is None


async def test_a_moment_before_its_jail_ended_is_unknown_and_new_ones_are_known(
    desk: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "IDLE_S", 0.0)
    monkeypatch.setattr(looks, "BUSY_S", 0.01)
    first = await desk.house.looks.changed_since(workspace.id, None)
    with anyio.fail_after(60):
        while await jails(desk):
            await anyio.sleep(0.01)
    monkeypatch.undo()
    assert await desk.house.looks.changed_since(workspace.id, first.moment) is None
    assert (await desk.house.looks.changed_since(workspace.id, None)).paths == ()


async def test_a_look_that_is_cancelled_confuses_no_later_one(desk: Any, workspace: Workspace) -> None:
    first = await desk.house.looks.changed_since(workspace.id, None)
    with anyio.move_on_after(0):
        await desk.house.looks.changed_since(workspace.id, first.moment)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.house.looks.changed_since, workspace.id, first.moment)
            await anyio.lowlevel.checkpoint()
            scope.cancel()
    again = await desk.house.looks.changed_since(workspace.id, None)
    await desk.sh(workspace, "echo x > x")
    assert (await desk.house.looks.changed_since(workspace.id, again.moment)).paths == ("x",)


async def test_so_many_jails_are_open_at_once(desk: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "OPEN_AT_ONCE", 1)
    other = await desk.workspace(None)
    assert await desk.house.looks.changed_since(workspace.id, None) is not None
    assert await desk.house.looks.changed_since(other.id, None) is not None
    with anyio.fail_after(60):
        while len(await jails(desk)) > 1:
            await anyio.sleep(0.01)


async def test_the_host_that_stops_waits_for_no_look(desk: Any, workspace: Workspace) -> None:
    await desk.house.looks.changed_since(workspace.id, None)
    desk.house.looks.close()
    assert await desk.house.looks.changed_since(workspace.id, None) is None


def test_what_is_written_through_an_older_mapping_is_told_though_no_time_changes(folder: Folder) -> None:
    (folder.path / "mapped").write_text("good")
    with (folder.path / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:4] = b"good"  # from here on the page takes writes without a word to the filesystem
        before = folder.moment()
        assert folder.changed(before) == []
        mapped[0:4] = b"evil"
        assert folder.changed(before) == ["mapped"]
    assert folder.changed(folder.moment()) == []
