"""Clones and diffs of real repositories by real git in the real jail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kandev_host.errors import Conflict, KandevError, NotFound, Unavailable, ValidationFailed
from kandev_host.interfaces import ProcessSpec
from kandev_host.models import Task, Workspace
from kandev_host.protocol.actions.agents import DiffReply, WorkspaceDiff
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.tasks import TaskUpdate

pytestmark = pytest.mark.anyio

IDENTITY = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"],
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], env=IDENTITY, check=True, capture_output=True)
    return done.stdout.decode().strip()


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below with its inode, links and content: what must not change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_nlink, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on main, a branch `side`, and a file that is not committed."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "a.txt").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    git(folder, "branch", "side")
    (folder / "b.txt").write_text("two\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "second")
    (folder / "dirty.txt").write_text("not committed\n")
    return folder


class Desk:
    """A task for each repository, and a shell in its workspace."""

    def __init__(self, house: Any, board_id: str) -> None:
        self.house = house
        self.board_id = board_id

    async def task(self, repository: Path | str | None, branch: str | None = None) -> Task:
        """A task as stored, whatever was checked at its creation."""
        from kandev_host.interfaces import Put

        url = None if repository is None else str(repository)
        task = Task(
            board_id=self.board_id, title="t", description="", repository_url=url, branch=branch, created_by="me"
        )
        await self.house.journal.record(Put(task))
        return task

    async def workspace(self, repository: Path | str | None, branch: str | None = None) -> Workspace:
        workspace: Workspace = await self.house.workspaces.ensure(await self.task(repository, branch), "bwrap")
        return workspace

    async def sh(self, workspace: Workspace, script: str) -> str:
        spec = ProcessSpec(workspace_id=workspace.id, command=("sh", "-c", script))
        result = await self.house.runtimes["bwrap"].run(spec)
        assert result.exit_code == 0, result.stderr.decode()
        return str(result.stdout.decode().strip())

    async def diff(self, workspace: Workspace) -> DiffReply:
        reply: DiffReply = await self.house.workspaces.diff(self.house.me, WorkspaceDiff(task_id=workspace.id))
        return reply


@pytest.fixture
async def desk(house: Any) -> Desk:
    made = await house.boards.create(house.me, BoardCreate(name="Work"))
    return Desk(house, made.board.id)


# --- clones -----------------------------------------------------------------------------------------------------------


async def test_a_clone_stands_on_a_branch_of_its_own(desk: Desk, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    assert (workspace.base_branch, workspace.base_commit) == ("main", git(repository, "rev-parse", "main"))
    assert await desk.sh(workspace, "git branch --show-current; ls") == f"{workspace.branch}\na.txt\nb.txt"


async def test_the_users_repository_is_not_touched(desk: Desk, repository: Path) -> None:
    before = snapshot(repository)
    await desk.workspace(repository)
    assert snapshot(repository) == before


async def test_a_clone_borrows_no_objects(desk: Desk, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    script = "cat .git/objects/info/alternates; find .git/objects -type f -links +1; test -d .git"
    assert await desk.sh(workspace, f"({script}) 2>/dev/null") == ""


async def test_a_named_branch_is_the_base(desk: Desk, repository: Path) -> None:
    workspace = await desk.workspace(repository, "side")
    assert (workspace.base_branch, workspace.base_commit) == ("side", git(repository, "rev-parse", "side"))


async def test_a_linked_worktree_gives_its_own_head(desk: Desk, repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "--quiet", str(tmp_path / "tree"), "side")
    workspace = await desk.workspace(tmp_path / "tree")
    assert workspace.base_branch == "side"


async def test_a_detached_worktree_gives_its_commit(desk: Desk, repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git(repository, "worktree", "add", "--quiet", "--detach", str(tree), "side")
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "on no branch")
    workspace = await desk.workspace(tree)
    assert (workspace.base_branch, workspace.base_commit) == (None, git(tree, "rev-parse", "HEAD"))


async def test_a_detached_head_gives_its_commit(desk: Desk, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach", "HEAD^")
    workspace = await desk.workspace(repository)
    assert (workspace.base_branch, workspace.base_commit) == (None, git(repository, "rev-parse", "HEAD"))


async def test_a_bare_repository_is_cloned(desk: Desk, repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), "bare.git")
    assert (await desk.workspace(tmp_path / "bare.git")).base_branch == "main"


async def test_a_file_url_is_a_local_repository(desk: Desk, repository: Path) -> None:
    assert (await desk.workspace(f"file://{repository}")).base_branch == "main"


async def test_borrowed_objects_of_the_source_are_dissolved(desk: Desk, repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--shared", str(repository), "shared")
    workspace = await desk.workspace(tmp_path / "shared")
    assert await desk.sh(workspace, "git fsck --full 2>&1; cat .git/objects/info/alternates 2>/dev/null || true") == ""


async def test_an_empty_repository_starts_with_an_empty_commit(desk: Desk, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk", "empty")
    workspace = await desk.workspace(tmp_path / "empty")
    assert (workspace.base_branch, await desk.sh(workspace, "git log --format=%H")) == ("trunk", workspace.base_commit)


async def test_without_repository_there_is_an_empty_one(desk: Desk) -> None:
    workspace = await desk.workspace(None)
    assert await desk.sh(workspace, "git status --porcelain; git log --format=%H") == workspace.base_commit


async def test_a_repository_on_a_branch_called_kandev_is_no_obstacle(desk: Desk, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "-b", "kandev")
    assert (await desk.workspace(repository)).base_branch == "kandev"


async def test_an_agent_can_commit_in_its_clone(desk: Desk, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    author = "git commit --quiet --allow-empty -m x && git log -1 --format=%an"
    assert await desk.sh(workspace, author) == "kandev agent"


# --- refusals ---------------------------------------------------------------------------------------------------------


async def refused(desk: Desk, repository: Path | str, branch: str | None = None) -> ValidationFailed:
    task = await desk.task(repository, branch)
    with pytest.raises(ValidationFailed) as caught:
        await desk.house.workspaces.ensure(task, "bwrap")
    assert await desk.house.store.get(Workspace, task.id) is None
    with pytest.raises(KandevError):
        await desk.house.runtimes["bwrap"].run(ProcessSpec(workspace_id=task.id, command=("true",)))
    return caught.value


async def test_a_folder_that_is_not_there_is_named(desk: Desk, tmp_path: Path) -> None:
    error = await refused(desk, tmp_path / "gone")
    assert (error.details["field"], "No such folder" in error.message) == ("repository_url", True)


async def test_a_folder_that_is_not_git_is_named(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert "Not a git repository" in (await refused(desk, tmp_path / "plain")).message


async def test_a_folder_inside_a_repository_is_told_its_top(desk: Desk, repository: Path) -> None:
    (repository / "inner").mkdir()
    assert f"did you mean {repository}" in (await refused(desk, repository / "inner")).message


async def test_a_leading_dash_is_refused(desk: Desk) -> None:
    assert (await refused(desk, "--upload-pack=touch /tmp/x")).details["field"] == "repository_url"


async def test_an_unknown_branch_leaves_nothing_behind(desk: Desk, repository: Path) -> None:
    error = await refused(desk, repository, "nowhere")
    assert (error.details["field"], "no branch 'nowhere'" in error.message) == ("branch", True)


@pytest.mark.parametrize("branch", ["-x", "a..b", "a b", "x.lock", "@{1}", "a\nb", ".x", "a/", "a~1", "refs:x"])
async def test_a_branch_name_that_git_refuses_is_refused(desk: Desk, repository: Path, branch: str) -> None:
    assert (await refused(desk, repository, branch)).details["field"] == "branch"


async def test_a_git_file_that_is_a_pipe_does_not_hang(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    os.mkfifo(tmp_path / "odd" / ".git")
    assert (await refused(desk, tmp_path / "odd")).details["field"] == "repository_url"


async def test_a_remote_that_nobody_serves_is_explained_and_leaves_nothing(desk: Desk) -> None:
    task = await desk.task("http://127.0.0.1:9/x.git")
    with pytest.raises(KandevError) as caught:
        await desk.house.workspaces.ensure(task, "bwrap")
    assert (caught.value.code, "fatal:" in caught.value.message) == ("UNAVAILABLE", True)
    assert await desk.house.store.get(Workspace, task.id) is None


# --- hostile repositories ---------------------------------------------------------------------------------------------


async def test_nothing_that_a_repository_configures_runs_on_the_host(
    desk: Desk, repository: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    script = tmp_path / "trap.sh"
    script.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    script.chmod(0o755)
    for key in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "diff.external", "diff.x.textconv",
        "filter.x.clean", "filter.x.smudge", "filter.x.process", "uploadpack.packObjectsHook", "alias.x",
        "credential.helper",
    ):  # fmt: skip
        git(repository, "config", key, str(script))
    (repository / ".git" / "hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        (repository / ".git" / "hooks" / hook).symlink_to(script)
    (repository / ".gitattributes").write_text("* filter=x diff=x\n")
    git(repository, "-c", "filter.x.clean=cat", "-c", "filter.x.process=", "add", ".gitattributes")
    git(repository, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "commit", "--quiet", "-m", "trap")
    canary.unlink(missing_ok=True)
    workspace = await desk.workspace(repository)
    await desk.diff(workspace)
    assert not canary.exists()


async def test_what_an_agent_configures_does_not_run_on_the_host(desk: Desk, repository: Path, tmp_path: Path) -> None:
    workspace = await desk.workspace(repository)
    canary = tmp_path / "canary"
    await desk.sh(
        workspace,
        f"printf '#!/bin/sh\\ntouch {canary} /tmp/ran\\n' > /tmp/trap; chmod +x /tmp/trap;"
        "git config core.fsmonitor /tmp/trap; git config diff.external /tmp/trap;"
        "git config core.hooksPath /tmp; ln -s trap /tmp/post-index-change; echo x >> a.txt",
    )
    assert (await desk.diff(workspace)).additions == 1
    assert await desk.sh(workspace, "test -e /tmp/ran && echo ran || true") == ""
    assert not canary.exists()


# --- diffs ------------------------------------------------------------------------------------------------------------


async def changed(desk: Desk, repository: Path, script: str) -> DiffReply:
    workspace = await desk.workspace(repository)
    if script:
        await desk.sh(workspace, script)
    return await desk.diff(workspace)


async def test_an_unchanged_workspace_has_no_difference(desk: Desk, repository: Path) -> None:
    reply = await changed(desk, repository, "")
    assert (reply.diff, reply.files, reply.truncated) == ("", [], False)


async def test_a_diff_counts_what_was_changed_added_and_deleted(desk: Desk, repository: Path) -> None:
    reply = await changed(desk, repository, "echo more >> a.txt; rm b.txt; echo new > 'c d.txt'")
    assert [(file.path, file.status, file.additions, file.deletions) for file in reply.files] == [
        ("a.txt", "modified", 1, 0),
        ("b.txt", "deleted", 0, 1),
        ("c d.txt", "added", 1, 0),
    ]
    assert (reply.additions, reply.deletions, "+more\n" in reply.diff, "+new\n" in reply.diff) == (2, 1, True, True)


async def test_a_diff_includes_what_the_agent_committed(desk: Desk, repository: Path) -> None:
    reply = await changed(desk, repository, "echo x > n; git add n; git commit -qm x")
    assert [file.path for file in reply.files] == ["n"]


async def test_a_diff_can_be_applied_to_the_base(desk: Desk, repository: Path, tmp_path: Path) -> None:
    reply = await changed(desk, repository, "echo more >> a.txt; echo new > c; rm b.txt; chmod +x a.txt")
    patch = tmp_path / "x.patch"
    patch.write_text(reply.diff)
    git(repository, "apply", "--check", str(patch))


async def test_a_binary_file_is_named_without_lines(desk: Desk, repository: Path) -> None:
    reply = await changed(desk, repository, "head -c 300 /dev/zero > blob")
    assert (reply.files[0].binary, reply.files[0].additions, "Binary files" in reply.diff) == (True, None, True)


async def test_a_renamed_file_keeps_its_old_name(desk: Desk, repository: Path) -> None:
    reply = await changed(desk, repository, "mv a.txt z.txt")
    assert (reply.files[0].status, reply.files[0].old_path, reply.files[0].path) == ("renamed", "a.txt", "z.txt")


async def test_names_that_are_no_ascii_or_hold_newlines_survive(desk: Desk, repository: Path) -> None:
    reply = await changed(desk, repository, "echo x > 'ü.txt'; echo y > \"$(printf 'a\\tb\\nc')\"")
    assert {file.path for file in reply.files} == {"ü.txt", "a\tb\nc"}


async def test_ignored_files_do_not_count(desk: Desk, repository: Path) -> None:
    reply = await changed(desk, repository, "echo x > hidden; echo hidden > .gitignore")
    assert [file.path for file in reply.files] == [".gitignore"]


async def test_an_index_that_hides_changes_hides_nothing(desk: Desk, repository: Path) -> None:
    hide = "git update-index --assume-unchanged a.txt; git update-index --skip-worktree b.txt"
    script = f"{hide}; echo x >> a.txt; echo y >> b.txt"
    assert [file.path for file in (await changed(desk, repository, script)).files] == ["a.txt", "b.txt"]


async def test_the_agents_index_is_left_alone(desk: Desk, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, "echo x >> a.txt; git add a.txt; echo y > untracked")
    script = "sha1sum .git/index; git status --porcelain; find .git/objects -type f | sort"
    before = await desk.sh(workspace, script)
    await desk.diff(workspace)
    assert await desk.sh(workspace, script) == before


async def test_a_repository_without_commits_inside_does_not_break_the_diff(desk: Desk, repository: Path) -> None:
    reply = await changed(desk, repository, "git init -q inner; echo x > inner/y; echo z >> a.txt")
    assert "a.txt" in [file.path for file in reply.files]


async def test_a_repository_that_the_agent_ruined_is_said_to_be(desk: Desk, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, "rm -rf .git")
    with pytest.raises(Unavailable):
        await desk.diff(workspace)


async def test_a_long_diff_is_cut_at_a_line_and_says_so(open_house: Any, repository: Path, tmp_path: Path) -> None:
    from kandev_host.settings import Settings, WorkspaceSettings

    settings = Settings(workspace=WorkspaceSettings(diff_limit_bytes=1000))
    async with open_house(tmp_path / "small", [], settings) as house:
        made = await house.boards.create(house.me, BoardCreate(name="Work"))
        reply = await changed(Desk(house, made.board.id), repository, "seq 1 100000 > long")
    assert (reply.truncated, len(reply.diff) <= 1000, reply.diff.endswith("\n"), reply.additions) == (
        True,
        True,
        True,
        100_000,
    )


async def test_the_diff_of_a_task_without_workspace_is_not_found(desk: Desk) -> None:
    task = await desk.task(None)
    with pytest.raises(NotFound) as caught:
        await desk.house.workspaces.diff(desk.house.me, WorkspaceDiff(task_id=task.id))
    assert caught.value.details["kind"] == "workspace"


# --- remotes of this machine ------------------------------------------------------------------------------------------


async def test_a_source_cannot_change_once_the_workspace_is_made(desk: Desk, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    with pytest.raises(Conflict):
        await desk.house.tasks.update(desk.house.me, TaskUpdate(task_id=workspace.id, branch="side"))


@pytest.fixture
def served(repository: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of the repository behind git's dumb HTTP transport, on a port of this machine."""
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), "served.git")
    git(tmp_path / "served.git", "update-server-info")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/served.git"
        server.shutdown()
        thread.join()


async def test_a_remote_on_a_port_of_this_machine_is_cloned_through_that_port_alone(
    desk: Desk, served: str, repository: Path
) -> None:
    workspace = await desk.workspace(served)
    assert (workspace.base_branch, workspace.base_commit) == ("main", git(repository, "rev-parse", "main"))
