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

from kandev_host.errors import Conflict, KandevError, ValidationFailed
from kandev_host.interfaces import ProcessSpec
from kandev_host.models import Workspace
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


# --- clones -----------------------------------------------------------------------------------------------------------


async def test_a_clone_stands_on_a_branch_of_its_own(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    assert (workspace.base_branch, workspace.base_commit) == ("main", git(repository, "rev-parse", "main"))
    assert await desk.sh(workspace, "git branch --show-current; ls") == f"{workspace.branch}\na.txt\nb.txt"


async def test_the_users_repository_is_not_touched(desk: Any, repository: Path) -> None:
    before = snapshot(repository)
    await desk.workspace(repository)
    assert snapshot(repository) == before


async def test_a_clone_borrows_no_objects(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    script = "cat .git/objects/info/alternates; find .git/objects -type f -links +1; test -d .git"
    assert await desk.sh(workspace, f"({script}) 2>/dev/null") == ""


async def test_a_named_branch_is_the_base(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository, "side")
    assert (workspace.base_branch, workspace.base_commit) == ("side", git(repository, "rev-parse", "side"))


async def test_a_linked_worktree_gives_its_own_head(desk: Any, repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "--quiet", str(tmp_path / "tree"), "side")
    workspace = await desk.workspace(tmp_path / "tree")
    assert workspace.base_branch == "side"


async def test_a_detached_worktree_gives_its_commit(desk: Any, repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git(repository, "worktree", "add", "--quiet", "--detach", str(tree), "side")
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "on no branch")
    workspace = await desk.workspace(tree)
    assert (workspace.base_branch, workspace.base_commit) == (None, git(tree, "rev-parse", "HEAD"))


async def test_a_detached_head_gives_its_commit(desk: Any, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach", "HEAD^")
    workspace = await desk.workspace(repository)
    assert (workspace.base_branch, workspace.base_commit) == (None, git(repository, "rev-parse", "HEAD"))


async def test_a_bare_repository_is_cloned(desk: Any, repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), "bare.git")
    assert (await desk.workspace(tmp_path / "bare.git")).base_branch == "main"


async def test_a_file_url_is_a_local_repository(desk: Any, repository: Path) -> None:
    assert (await desk.workspace(f"file://{repository}")).base_branch == "main"


async def test_borrowed_objects_of_the_source_are_dissolved(desk: Any, repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--shared", str(repository), "shared")
    workspace = await desk.workspace(tmp_path / "shared")
    assert await desk.sh(workspace, "git fsck --full 2>&1; cat .git/objects/info/alternates 2>/dev/null || true") == ""


async def test_an_empty_repository_starts_with_an_empty_commit(desk: Any, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk", "empty")
    workspace = await desk.workspace(tmp_path / "empty")
    assert (workspace.base_branch, await desk.sh(workspace, "git log --format=%H")) == ("trunk", workspace.base_commit)


async def test_without_repository_there_is_an_empty_one(desk: Any) -> None:
    workspace = await desk.workspace(None)
    assert await desk.sh(workspace, "git status --porcelain; git log --format=%H") == workspace.base_commit


async def test_a_repository_on_a_branch_called_kandev_is_no_obstacle(desk: Any, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "-b", "kandev")
    assert (await desk.workspace(repository)).base_branch == "kandev"


async def test_an_agent_can_commit_in_its_clone(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    author = "git commit --quiet --allow-empty -m x && git log -1 --format=%an"
    assert await desk.sh(workspace, author) == "kandev agent"


# --- refusals ---------------------------------------------------------------------------------------------------------


async def refused(desk: Any, repository: Path | str, branch: str | None = None) -> ValidationFailed:
    task = await desk.task(repository, branch)
    with pytest.raises(ValidationFailed) as caught:
        await desk.house.workspaces.ensure(task, "bwrap")
    assert await desk.house.store.get(Workspace, task.id) is None
    with pytest.raises(KandevError):
        await desk.house.runtimes["bwrap"].run(ProcessSpec(workspace_id=task.id, command=("true",)))
    return caught.value


async def test_a_folder_that_is_not_there_is_named(desk: Any, tmp_path: Path) -> None:
    error = await refused(desk, tmp_path / "gone")
    assert (error.details["field"], "No such folder" in error.message) == ("repository_url", True)


async def test_a_folder_that_is_not_git_is_named(desk: Any, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert "Not a git repository" in (await refused(desk, tmp_path / "plain")).message


async def test_a_folder_inside_a_repository_is_told_its_top(desk: Any, repository: Path) -> None:
    (repository / "inner").mkdir()
    assert f"did you mean {repository}" in (await refused(desk, repository / "inner")).message


async def test_a_leading_dash_is_refused(desk: Any) -> None:
    assert (await refused(desk, "--upload-pack=touch /tmp/x")).details["field"] == "repository_url"


async def test_an_unknown_branch_leaves_nothing_behind(desk: Any, repository: Path) -> None:
    error = await refused(desk, repository, "nowhere")
    assert (error.details["field"], "no branch 'nowhere'" in error.message) == ("branch", True)


@pytest.mark.parametrize("branch", ["-x", "a..b", "a b", "x.lock", "@{1}", "a\nb", ".x", "a/", "a~1", "refs:x"])
async def test_a_branch_name_that_git_refuses_is_refused(desk: Any, repository: Path, branch: str) -> None:
    assert (await refused(desk, repository, branch)).details["field"] == "branch"


async def test_a_git_file_that_is_a_pipe_does_not_hang(desk: Any, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    os.mkfifo(tmp_path / "odd" / ".git")
    assert (await refused(desk, tmp_path / "odd")).details["field"] == "repository_url"


@pytest.mark.skipif(os.geteuid() != 0, reason="only a host run by root gives its jails another user")
async def test_a_repository_that_the_jail_may_not_read_is_said_to_be(desk: Any, repository: Path) -> None:
    (repository / ".git").chmod(0o700)
    assert "chmod" in (await refused(desk, repository)).message


async def test_a_remote_that_nobody_serves_is_explained_and_leaves_nothing(desk: Any) -> None:
    task = await desk.task("http://127.0.0.1:9/x.git")
    with pytest.raises(KandevError) as caught:
        await desk.house.workspaces.ensure(task, "bwrap")
    assert (caught.value.code, "fatal:" in caught.value.message) == ("UNAVAILABLE", True)
    assert await desk.house.store.get(Workspace, task.id) is None


# --- hostile repositories ---------------------------------------------------------------------------------------------


async def test_nothing_that_a_repository_configures_runs_on_the_host(
    desk: Any, repository: Path, tmp_path: Path
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


async def test_what_an_agent_configures_does_not_run_on_the_host(desk: Any, repository: Path, tmp_path: Path) -> None:
    workspace = await desk.workspace(repository)
    canary = tmp_path / "canary"
    await desk.sh(
        workspace,
        f"printf '#!/bin/sh\\ntouch {canary} /tmp/ran\\n' > /tmp/trap; chmod +x /tmp/trap;"
        "git config core.fsmonitor /tmp/trap; git config diff.external /tmp/trap;"
        "git config core.hooksPath /tmp; ln -s trap /tmp/post-index-change; echo x >> a.txt",
        pin_git=False,
    )
    assert (await desk.diff(workspace)).additions == 1
    assert await desk.sh(workspace, "test -e /tmp/ran && echo ran || true") == ""
    assert not canary.exists()


# --- remotes of this machine ------------------------------------------------------------------------------------------


async def test_a_source_cannot_change_once_the_workspace_is_made(desk: Any, repository: Path) -> None:
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
    desk: Any, served: str, repository: Path
) -> None:
    workspace = await desk.workspace(served)
    assert (workspace.base_branch, workspace.base_commit) == ("main", git(repository, "rev-parse", "main"))
