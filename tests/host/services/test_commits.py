"""Commits of real workspaces, taken home into real repositories by real git in the real jail."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kandev_host import Principal
from kandev_host.errors import Conflict, Forbidden, KandevError, PayloadTooLarge, ValidationFailed
from kandev_host.interfaces import Result
from kandev_host.models import Workspace
from kandev_host.protocol.actions.snapshots import CommitsReply, WorkspaceCommits
from kandev_host.services.snapshot_jail import SnapshotJail
from kandev_host.settings import Settings, SnapshotSettings

pytestmark = pytest.mark.anyio

ONE = "echo x > new; git add new; git commit -qm 'A new file' -m 'With a body'"


def git(folder: Path, *arguments: str) -> str:
    env = {"GIT_CONFIG_GLOBAL": "/dev/null", "PATH": os.environ["PATH"]}
    done = subprocess.run(["git", "-C", str(folder), *arguments], env=env, check=True, capture_output=True)
    return done.stdout.decode().strip()


async def ask(desk: Any, workspace: Workspace, branch: str | None = None, **more: Any) -> CommitsReply:
    request = WorkspaceCommits(task_id=workspace.id, push_to=branch, **more)
    reply: CommitsReply = await desk.house.commits.commits(desk.house.me, request)
    return reply


@pytest.fixture
async def workspace(desk: Any, repository: Path) -> Workspace:
    made: Workspace = await desk.workspace(repository)
    return made


async def test_commits_since_the_base_are_told_newest_first(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, f"{ONE}; echo y > new; git commit -qam second")
    reply = await ask(desk, workspace)
    assert [commit.message for commit in reply.commits] == ["second", "A new file\n\nWith a body"]
    assert reply.commits[1].parents == [workspace.base_commit]
    assert (reply.branch, reply.head, reply.truncated) == (workspace.branch, reply.commits[0].commit, False)


async def test_without_commits_there_are_none(desk: Any, workspace: Workspace) -> None:
    assert (await ask(desk, workspace)).commits == []
    with pytest.raises(Conflict, match="nothing was committed") as caught:
        await ask(desk, workspace, "home")
    before, _, command = caught.value.details["fix"].partition(" -- ")
    assert before == f"kandev-host exec --task {workspace.id}"
    shell, _, script = shlex.split(command)
    assert shell == "sh"
    await desk.sh(workspace, f"echo x > new; {script}")
    reply = await ask(desk, workspace, "home")
    assert reply.pushed is not None
    assert reply.pushed.commits == 1


async def test_commits_come_home_as_a_new_branch_and_nothing_else_changes(
    desk: Any, workspace: Workspace, repository: Path
) -> None:
    await desk.sh(workspace, ONE)
    before = (git(repository, "show-ref", "--heads"), git(repository, "status", "--porcelain"))
    reply = await ask(desk, workspace, "kandev/home")
    assert reply.pushed is not None
    assert (reply.pushed.commits, reply.pushed.previous) == (1, None)
    assert git(repository, "show", "kandev/home:new") == "x"
    git(repository, "fsck", "--strict")
    git(repository, "branch", "-D", "kandev/home")
    assert (git(repository, "show-ref", "--heads"), git(repository, "status", "--porcelain")) == before


async def test_no_hook_filter_or_setting_of_either_repository_runs(
    desk: Any, workspace: Workspace, repository: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    for hook in ("reference-transaction", "post-update", "update", "pre-receive", "post-receive", "post-checkout"):
        path = repository / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {ran}\n")
        path.chmod(0o755)
    with (repository / ".git/config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = touch {ran}\n\talternateRefsCommand = touch {ran}\n")
    await desk.sh(workspace, f"{ONE}; git config uploadpack.packObjectsHook 'touch /tmp/ran' || true")
    await ask(desk, workspace, "home")
    assert not ran.exists()


async def test_a_branch_that_is_there_is_moved_only_forward_and_by_force(
    desk: Any, workspace: Workspace, repository: Path
) -> None:
    await desk.sh(workspace, ONE)
    first = await ask(desk, workspace, "home")
    await desk.sh(workspace, "echo y > new; git commit -qam second")
    with pytest.raises(Conflict, match="already"):
        await ask(desk, workspace, "home")
    git(repository, "pack-refs", "--all")
    second = await ask(desk, workspace, "home", force=True)
    assert second.pushed is not None
    assert (second.pushed.previous, git(repository, "rev-parse", "home")) == (first.head, second.head)
    await desk.sh(workspace, "git reset -q --hard HEAD~2; echo z > z; git add z; git commit -qm other")
    with pytest.raises(Conflict, match="do not follow"):
        await ask(desk, workspace, "home", force=True)
    assert git(repository, "rev-parse", "home") == second.head


async def test_the_same_commits_may_be_taken_home_again(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, ONE)
    await ask(desk, workspace, "home")
    assert (await ask(desk, workspace, "home")).pushed is not None


@pytest.mark.parametrize("packed", [False, True])
async def test_a_branch_that_is_checked_out_is_never_touched(
    desk: Any, workspace: Workspace, repository: Path, tmp_path: Path, packed: bool
) -> None:
    await desk.sh(workspace, ONE)
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"), "side")
    if packed:
        git(repository, "pack-refs", "--all")
    for branch in ("main", "side"):
        with pytest.raises(Conflict, match="checked out"):
            await ask(desk, workspace, branch, force=True)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("branch", ["side/below", "deep/branch", "deep"])
async def test_a_branch_whose_name_cannot_be_is_a_conflict(
    desk: Any, workspace: Workspace, repository: Path, branch: str, packed: bool
) -> None:
    await desk.sh(workspace, ONE)
    git(repository, "branch", "deep/branch/is")
    if packed:
        git(repository, "pack-refs", "--all")
    with pytest.raises(Conflict, match="way"):
        await ask(desk, workspace, branch)


async def test_a_lock_of_another_git_is_respected(desk: Any, workspace: Workspace, repository: Path) -> None:
    await desk.sh(workspace, ONE)
    lock = repository / ".git/refs/heads/home.lock"
    lock.touch()
    with pytest.raises(Conflict, match="Another git"):
        await ask(desk, workspace, "home")
    assert lock.exists()


async def test_a_planted_link_among_the_refs_leads_nowhere(
    desk: Any, workspace: Workspace, repository: Path, tmp_path: Path
) -> None:
    await desk.sh(workspace, ONE)
    (tmp_path / "victim").mkdir()
    (repository / ".git/refs/heads/linked").symlink_to(tmp_path / "victim")
    with pytest.raises(KandevError):
        await ask(desk, workspace, "linked/home")
    assert list((tmp_path / "victim").iterdir()) == []


@pytest.mark.parametrize("path", ["AGENTS.md", "deep/.GitHub/workflows/x.yml", ".gitattributes"])
async def test_protected_files_come_home_only_when_somebody_approved(
    desk: Any, workspace: Workspace, repository: Path, path: str
) -> None:
    script = (
        f"mkdir -p $(dirname {path}); echo x > {path}; git add .; git commit -qm 1; git rm -q {path}; git commit -qm 2"
    )
    await desk.sh(workspace, script)
    with pytest.raises(Conflict) as caught:
        await ask(desk, workspace, "home")
    assert caught.value.details["paths"] == [path]
    assert "home" not in git(repository, "branch")
    reply = await ask(desk, workspace, "home", approve_protected=True)
    assert reply.pushed is not None
    assert reply.pushed.protected == [path]


BROKEN = {
    "an object is missing": "rm -f $(git rev-parse HEAD:new | sed 's,^..,.git/objects/&/,')",
    "a .git in a tree": "t=$(printf '100644 blob %s\\t.git\\n' $(git rev-parse HEAD:new) | git mktree);"
    "git update-ref HEAD $(git commit-tree -m evil -p HEAD $t)",
    "a path that leads out": "t=$(printf '100644 blob %s\\t..\\n' $(git rev-parse HEAD:new) | git mktree);"
    "git update-ref HEAD $(git commit-tree -m evil -p HEAD $t)",
    "a replaced object": "git replace HEAD HEAD~1; rm -rf .git/objects/$(git rev-parse HEAD | cut -c1-2)",
}


REASONS = {
    "an object is missing": "cannot be read",
    "a .git in a tree": "contains '.git'",
    "a path that leads out": "contains '..'",
    "a replaced object": "cannot be read",
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_what_is_no_sound_history_does_not_come_home(
    desk: Any, workspace: Workspace, repository: Path, kind: str
) -> None:
    await desk.sh(workspace, f"{ONE}; {BROKEN[kind]}")
    packs = sorted((repository / ".git/objects").rglob("*"))
    with pytest.raises(KandevError, match=REASONS[kind]):
        await ask(desk, workspace, "home")
    assert "home" not in git(repository, "branch")
    assert sorted((repository / ".git/objects").rglob("*")) == packs


async def test_only_a_local_repository_takes_commits_home(desk: Any) -> None:
    workspace = await desk.workspace(None)
    await desk.sh(workspace, f"git config user.name a; git config user.email a@a; {ONE}")
    with pytest.raises(ValidationFailed):
        await ask(desk, workspace, "home")


@pytest.mark.parametrize("branch", ["-x", "a..b", "a b", "@", "x.lock", "a/../b"])
async def test_what_can_be_no_branch_is_refused(desk: Any, workspace: Workspace, branch: str) -> None:
    with pytest.raises(ValidationFailed):
        await ask(desk, workspace, branch)


async def test_only_users_take_commits_home(desk: Any, workspace: Workspace) -> None:
    agent = Principal("a", "agent", "agent", frozenset({"*"}))
    with pytest.raises(Forbidden):
        await desk.house.commits.commits(agent, WorkspaceCommits(task_id=workspace.id, push_to="home"))


async def test_a_pack_beyond_the_limit_is_too_large(
    open_house: Any, make_desk: Any, repository: Path, tmp_path: Path
) -> None:
    from kandev_host.protocol.actions.boards import BoardCreate

    settings = Settings(snapshots=SnapshotSettings(push_limit_bytes=10_000))
    async with open_house(tmp_path / "small", [], settings) as house:
        made = await house.boards.create(house.me, BoardCreate(name="Work"))
        desk = make_desk(house, made.board.id)
        workspace = await desk.workspace(repository)
        await desk.sh(workspace, "head -c 100000 /dev/urandom > new; git add new; git commit -qm big")
        with pytest.raises(PayloadTooLarge):
            await ask(desk, workspace, "home")


async def test_commits_that_borrow_from_a_repository_of_alternates_come_home(
    desk: Any, repository: Path, tmp_path: Path
) -> None:
    borrowing = tmp_path / "borrowing"
    subprocess.run(["git", "clone", "-q", "--shared", str(repository), str(borrowing)], check=True)
    workspace = await desk.workspace(borrowing)
    await desk.sh(workspace, "echo more >> a.txt; git commit -qam more")
    await ask(desk, workspace, "home")
    assert git(borrowing, "show", "home:a.txt") == "one\nmore"


async def test_it_is_written_down_that_commits_went_home(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, ONE)
    await ask(desk, workspace, "home")
    assert [item.task_id for item in desk.house.events if item.action == "workspace.pushed"] == [workspace.id]


@pytest.mark.parametrize("name", ["../../hooks/x", "pack-" + "0" * 40])
async def test_a_pack_that_is_not_named_after_its_content_stays_outside(
    desk: Any, workspace: Workspace, repository: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    raw = SnapshotJail.raw

    async def forged(jail: SnapshotJail, module: str, *arguments: Any, **more: Any) -> Result:
        result = await raw(jail, module, *arguments, **more)
        line, _, rest = result.stdout.partition(b"\n")
        told = msgspec.json.encode({**msgspec.json.decode(line), "name": name})
        return Result(0, told + b"\n" + rest, b"", truncated=False)

    monkeypatch.setattr(SnapshotJail, "raw", forged)
    await desk.sh(workspace, ONE)
    before = sorted((repository / ".git").rglob("*"))
    with pytest.raises(KandevError, match="arrived broken"):
        await ask(desk, workspace, "home")
    assert sorted((repository / ".git").rglob("*")) == before
