"""A workspace goes only when nobody needs it and nothing is lost with it, or when somebody insists."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.errors import Conflict, NotFound, StorageFull, Unavailable
from kandev_host.interfaces import Put
from kandev_host.models import QueueEntry, Snapshot, Task, Workspace, new_id
from kandev_host.protocol.actions.boards import BoardDelete
from kandev_host.protocol.actions.tasks import TaskDelete
from kandev_host.protocol.actions.workspaces import WorkspaceDelete, WorkspaceDeleted, WorkspaceGet
from kandev_host.services.unsaved import Unsaved
from kandev_host.settings import Settings

pytestmark = pytest.mark.anyio

DEADLINE_S = 60


async def delete(desk: Any, workspace: Workspace | Task, *, force: bool = False) -> WorkspaceDeleted:
    request = WorkspaceDelete(task_id=workspace.id, force=force)
    reply: WorkspaceDeleted = await desk.house.workspace_keeping.delete(desk.house.me, request)
    return reply


async def refused(desk: Any, workspace: Workspace) -> dict[str, Any]:
    with pytest.raises(Conflict) as caught:
        await delete(desk, workspace)
    assert await desk.house.store.get(Workspace, workspace.id) == workspace
    await desk.sh(workspace, "true")
    return caught.value.details


async def unsaved(desk: Any, workspace: Workspace) -> Unsaved:
    found: Unsaved = await desk.house.workspaces.unsaved(workspace)
    return found


COMMIT = "git add -A && git commit --quiet -m work"


# --- deletion ---------------------------------------------------------------------------------------------------------


async def test_a_clean_workspace_goes_with_its_folders_and_is_told(desk: Any, repository: Path, tmp_path: Path) -> None:
    workspace = await desk.workspace(repository)
    assert (await delete(desk, workspace)).deleted
    assert not (tmp_path / "data/workspaces" / workspace.id).exists()
    (told,) = [json.loads(bytes(item.payload)) for item in desk.house.events if item.action == "workspace.updated"][1:]
    assert (told["deleted"], told["task_id"]) == (True, workspace.id)
    with pytest.raises(NotFound):
        await desk.house.workspaces.get(workspace.id)


async def test_a_second_deletion_finds_nothing_and_is_no_error(desk: Any) -> None:
    workspace = await desk.workspace(None)
    await delete(desk, workspace)
    assert not (await delete(desk, workspace)).deleted


async def test_the_snapshots_of_a_workspace_go_with_it(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    row = Snapshot(task_id=workspace.id, kind="manual", created_by=desk.house.me.id)
    await desk.house.journal.record(Put(row))
    assert (await delete(desk, workspace)).deleted
    assert await desk.house.store.get(Snapshot, row.id) is None


async def test_without_task_there_is_nothing_to_delete(desk: Any) -> None:
    with pytest.raises(NotFound):
        await desk.house.workspace_keeping.delete(desk.house.me, WorkspaceDelete(task_id=new_id()))


async def test_a_later_agent_gets_a_new_workspace(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, "echo old > ~/old; echo old > old")
    await delete(desk, workspace, force=True)
    task = await desk.house.store.get(Task, workspace.id)
    again = await desk.house.workspaces.ensure(task, "bwrap")
    assert await desk.sh(again, "ls; ls ~") == "a.txt\nb.txt"


async def test_the_queue_keeps_a_workspace(desk: Any) -> None:
    workspace = await desk.workspace(None)
    await desk.house.journal.record(Put(QueueEntry(id=workspace.id, board_id=desk.board_id, created_by="me")))
    details = await refused(desk, workspace)
    assert (details["state"], details["held_by"]) == ("held", [{"kind": "queue", "id": workspace.id}])
    assert (await delete(desk, workspace, force=True)).deleted


async def test_an_agent_that_lives_keeps_its_workspace_until_force_ends_it(open_shop: Any, make_desk: Any) -> None:
    async with open_shop(Settings()) as shop:
        await shop.plays({"text": "Done."})
        desk = make_desk(shop.house, shop.task.board_id)
        workspace = await shop.house.workspaces.get(shop.task.id)
        assert [holder["kind"] for holder in (await refused(desk, workspace))["held_by"]] == ["agent"]
        with anyio.fail_after(DEADLINE_S):
            reply = await delete(desk, workspace, force=True)
        assert [holder.kind for holder in reply.ended] == ["agent"]
        assert await shop.house.store.get(Workspace, shop.task.id) is None
        assert await shop.house.runtimes["bwrap"].list_owned() == []


async def test_a_shell_keeps_a_workspace_until_force_ends_it(desk: Any) -> None:
    workspace, ended = await desk.workspace(None), []

    async def shells(task_id: str) -> list[str]:
        return ["s1"] if task_id == workspace.id and not ended else []

    async def end(task_id: str, shell_id: str) -> None:
        ended.append((task_id, shell_id))

    desk.house.holders.add("shell", shells, end)
    assert (await refused(desk, workspace))["held_by"] == [{"kind": "shell", "id": "s1"}]
    await delete(desk, workspace, force=True)
    assert ended == [(workspace.id, "s1")]


async def test_p9_a_workspace_that_a_dead_host_deleted_half_is_never_used_again(
    desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = await desk.workspace(None)
    with anyio.CancelScope() as host:

        async def die(_workspace_id: str) -> None:
            (tmp_path / "data/workspaces" / workspace.id / "workspace/.git/HEAD").unlink()
            host.cancel()
            await anyio.sleep(DEADLINE_S)

        with monkeypatch.context() as patch:
            patch.setattr(desk.house.runtimes["bwrap"], "remove", die)
            await delete(desk, workspace)
    assert host.cancelled_caught
    with pytest.raises(NotFound):
        await desk.house.workspaces.get(workspace.id)
    assert (await desk.house.recovery.reconcile())["workspaces_removed"] == [workspace.id]
    assert not (tmp_path / "data/workspaces" / workspace.id).exists()
    assert await desk.house.store.get(Task, workspace.id) is not None


async def test_a_store_that_is_full_deletes_nothing(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = await desk.workspace(None)

    async def full(*_changes: Any, **_options: Any) -> Any:
        raise StorageFull("The disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(desk.house.journal, "record", full)
        with pytest.raises(StorageFull):
            await delete(desk, workspace)
    await desk.sh(workspace, "git log -1")


# --- work that is nowhere else ----------------------------------------------------------------------------------------


async def test_files_that_are_not_committed_keep_a_workspace(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, "echo more >> a.txt; echo new > new.txt")
    details = await refused(desk, workspace)
    assert (details["state"], details["files"], details["names"]) == ("unsaved", 2, ["a.txt", "new.txt"])
    assert (await delete(desk, workspace, force=True)).deleted


async def test_commits_that_nobody_else_has_keep_a_workspace(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, f"echo 1 > new.txt; {COMMIT}; echo 2 > new.txt; {COMMIT}")
    assert (await refused(desk, workspace))["commits"] == 2


@pytest.mark.parametrize(
    "hide",
    [
        "git checkout --quiet -b elsewhere; {work}; git checkout --quiet -",
        "echo 1 > a.txt; git stash --quiet",
        "{work}; git tag kept; git reset --quiet --hard HEAD^",
        "{work}; git update-ref refs/remotes/origin/fake HEAD",
        "{work}; git replace HEAD HEAD^",
        "{work}; git config core.fsmonitor true; git config status.showUntrackedFiles no",
    ],
    ids=["branch", "stash", "tag", "remote ref", "replaced", "configured"],
)
async def test_commits_are_found_wherever_they_are(desk: Any, repository: Path, hide: str) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, hide.format(work=f"echo 1 > new.txt; {COMMIT}"), pin_git=False)
    assert (await unsaved(desk, workspace)).commits >= 1


@pytest.mark.parametrize(
    "hide",
    [
        "echo 1 > a.txt; git update-index --assume-unchanged a.txt",
        "mkdir .git/info; echo new > .git/info/exclude; echo 1 > new",
        "echo 1 > a.txt; git config filter.x.clean 'echo 1'; mkdir .git/info; echo '* filter=x'>.git/info/attributes",
        "rm a.txt",
        "git init --quiet inner; git -C inner -c user.name=a -c user.email=a@a commit --quiet --allow-empty -m x",
    ],
    ids=["assumed", "excluded", "filtered", "deleted", "nested repository"],
)
async def test_files_are_found_whatever_the_repository_says(desk: Any, repository: Path, hide: str) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, hide, pin_git=False)
    assert (await unsaved(desk, workspace)).files >= 1


async def test_ignored_files_are_no_work(desk: Any, repository: Path) -> None:
    (repository / ".gitignore").write_text("built/\n")
    desk_git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@a"]
    await anyio.run_process([*desk_git, "add", ".gitignore"])
    await anyio.run_process([*desk_git, "commit", "--quiet", "-m", "ignore"])
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, "mkdir built; echo > built/x")
    assert not await unsaved(desk, workspace)


async def test_commits_that_the_source_has_meanwhile_are_saved(desk: Any, repository: Path, tmp_path: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, f"echo 1 > new.txt; {COMMIT}")
    place = tmp_path / "data/workspaces" / workspace.id / "workspace"
    served = "--upload-pack=git -c safe.directory=* upload-pack"
    await anyio.run_process(["git", "-C", str(repository), "fetch", "-q", served, str(place), "HEAD:refs/heads/home"])
    assert not await unsaved(desk, workspace)
    assert (await delete(desk, workspace)).deleted


async def test_a_source_that_is_gone_saves_nothing_but_the_base(desk: Any, repository: Path, tmp_path: Path) -> None:
    workspace = await desk.workspace(repository)
    os.rename(repository, tmp_path / "moved")
    assert not await unsaved(desk, workspace)
    await desk.sh(workspace, f"echo 1 > new.txt; {COMMIT}")
    assert (await unsaved(desk, workspace)).commits == 1


@pytest.mark.parametrize(
    "ruin", ["rm -rf .git", "rm -rf .git/objects/*", "mkfifo .gitignore", "rm -rf .git; ln -s /proc .git"]
)
async def test_a_ruined_repository_is_never_taken_for_a_clean_one(desk: Any, ruin: str) -> None:
    workspace = await desk.workspace(None)
    await desk.sh(workspace, ruin, pin_git=False)
    details = await refused(desk, workspace)
    assert details["state"] == "unknown"


async def test_get_tells_what_would_be_lost(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, "echo 1 > new.txt")
    request = WorkspaceGet(task_id=workspace.id, unsaved=True)
    reply = await desk.house.workspace_reading.get(desk.house.me, request)
    assert (reply.unsaved.files, reply.unsaved.commits, reply.unsaved.names) == (1, 0, ["new.txt"])
    await desk.sh(workspace, "rm -rf .git", pin_git=False)
    reply = await desk.house.workspace_reading.get(desk.house.me, request)
    assert (reply.unsaved.files, "cannot be read" in reply.unsaved.reason) == (None, True)


# --- with the task ----------------------------------------------------------------------------------------------------


async def test_a_task_whose_workspace_has_work_is_deleted_by_force_only(desk: Any) -> None:
    workspace = await desk.workspace(None)
    await desk.sh(workspace, "echo 1 > new.txt")
    with pytest.raises(Conflict, match=r"1 file not committed \(new.txt\)") as caught:
        await desk.house.tasks.delete(desk.house.me, TaskDelete(task_id=workspace.id))
    assert caught.value.details["force"] == "throws that away"
    removed = (await desk.house.tasks.delete(desk.house.me, TaskDelete(task_id=workspace.id, force=True))).removed
    assert removed.workspace


async def test_a_board_with_work_is_deleted_by_force_only(desk: Any) -> None:
    await desk.workspace(None)
    workspace = await desk.workspace(None)
    await desk.sh(workspace, f"echo 1 > new.txt; {COMMIT}")
    with pytest.raises(Conflict) as caught:
        await desk.house.boards.delete(desk.house.me, BoardDelete(board_id=desk.board_id))
    assert caught.value.details["task_id"] == workspace.id
    await desk.house.boards.delete(desk.house.me, BoardDelete(board_id=desk.board_id, force=True))
    assert await desk.house.store.get(Workspace, workspace.id) is None


async def test_while_git_cannot_run_nothing_is_thrown_away(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = await desk.workspace(None)

    async def broken(*_arguments: Any, **_options: Any) -> Any:
        raise Unavailable("No jail")

    with monkeypatch.context() as patch:
        patch.setattr(desk.house.runtimes["bwrap"], "run", broken)
        with pytest.raises(Conflict) as caught:
            await delete(desk, workspace)
    assert caught.value.details["state"] == "unknown"
