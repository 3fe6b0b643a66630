"""Diffs of real workspaces by real git in the real jail."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from kandev_host.errors import NotFound, Unavailable
from kandev_host.protocol.actions.agents import DiffReply, WorkspaceDiff
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.settings import Settings, WorkspaceSettings

pytestmark = pytest.mark.anyio


async def changed(desk: Any, repository: Path, script: str) -> DiffReply:
    workspace = await desk.workspace(repository)
    if script:
        await desk.sh(workspace, script)
    reply: DiffReply = await desk.diff(workspace)
    return reply


async def test_an_unchanged_workspace_has_no_difference(desk: Any, repository: Path) -> None:
    reply = await changed(desk, repository, "")
    assert (reply.diff, reply.files, reply.truncated) == ("", [], False)


async def test_a_diff_counts_what_was_changed_added_and_deleted(desk: Any, repository: Path) -> None:
    reply = await changed(desk, repository, "echo more >> a.txt; rm b.txt; echo new > 'c d.txt'")
    assert [(file.path, file.status, file.additions, file.deletions) for file in reply.files] == [
        ("a.txt", "modified", 1, 0),
        ("b.txt", "deleted", 0, 1),
        ("c d.txt", "added", 1, 0),
    ]
    assert (reply.additions, reply.deletions, "+more\n" in reply.diff, "+new\n" in reply.diff) == (2, 1, True, True)


async def test_a_diff_includes_what_the_agent_committed(desk: Any, repository: Path) -> None:
    reply = await changed(desk, repository, "echo x > n; git add n; git commit -qm x")
    assert [file.path for file in reply.files] == ["n"]


async def test_a_diff_can_be_applied_to_the_base(desk: Any, repository: Path, tmp_path: Path) -> None:
    reply = await changed(desk, repository, "echo more >> a.txt; echo new > c; rm b.txt; chmod +x a.txt")
    patch = tmp_path / "x.patch"
    patch.write_text(reply.diff)
    subprocess.run(["git", "-C", str(repository), "apply", "--check", str(patch)], check=True)


async def test_a_binary_file_is_named_without_lines(desk: Any, repository: Path) -> None:
    reply = await changed(desk, repository, "head -c 300 /dev/zero > blob")
    assert (reply.files[0].binary, reply.files[0].additions, "Binary files" in reply.diff) == (True, None, True)


async def test_a_renamed_file_keeps_its_old_name(desk: Any, repository: Path) -> None:
    reply = await changed(desk, repository, "mv a.txt z.txt")
    assert (reply.files[0].status, reply.files[0].old_path, reply.files[0].path) == ("renamed", "a.txt", "z.txt")


async def test_names_that_are_no_ascii_or_hold_newlines_survive(desk: Any, repository: Path) -> None:
    reply = await changed(desk, repository, "echo x > 'ü.txt'; echo y > \"$(printf 'a\\tb\\nc')\"")
    assert {file.path for file in reply.files} == {"ü.txt", "a\tb\nc"}


async def test_ignored_files_do_not_count(desk: Any, repository: Path) -> None:
    reply = await changed(desk, repository, "echo x > hidden; echo hidden > .gitignore")
    assert [file.path for file in reply.files] == [".gitignore"]


async def test_an_index_that_hides_changes_hides_nothing(desk: Any, repository: Path) -> None:
    hide = "git update-index --assume-unchanged a.txt; git update-index --skip-worktree b.txt"
    script = f"{hide}; echo x >> a.txt; echo y >> b.txt"
    assert [file.path for file in (await changed(desk, repository, script)).files] == ["a.txt", "b.txt"]


async def test_the_agents_index_is_left_alone(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, "echo x >> a.txt; git add a.txt; echo y > untracked")
    script = "sha1sum .git/index; git status --porcelain; find .git/objects -type f | sort"
    before = await desk.sh(workspace, script)
    await desk.diff(workspace)
    assert await desk.sh(workspace, script) == before


async def test_a_repository_without_commits_inside_does_not_break_the_diff(desk: Any, repository: Path) -> None:
    reply = await changed(desk, repository, "git init -q inner; echo x > inner/y; echo z >> a.txt")
    assert "a.txt" in [file.path for file in reply.files]


async def test_a_repository_that_the_agent_ruined_is_said_to_be(desk: Any, repository: Path) -> None:
    workspace = await desk.workspace(repository)
    await desk.sh(workspace, "rm -rf .git/HEAD .git/refs .git/objects")
    with pytest.raises(Unavailable):
        await desk.diff(workspace)


async def test_a_long_diff_is_cut_at_a_line_and_says_so(
    open_house: Any, make_desk: Any, repository: Path, tmp_path: Path
) -> None:
    settings = Settings(workspace=WorkspaceSettings(diff_limit_bytes=1000))
    async with open_house(tmp_path / "small", [], settings) as house:
        made = await house.boards.create(house.me, BoardCreate(name="Work"))
        reply = await changed(make_desk(house, made.board.id), repository, "seq 1 100000 > long")
    assert (reply.truncated, len(reply.diff) <= 1000, reply.diff.endswith("\n"), reply.additions) == (
        True,
        True,
        True,
        100_000,
    )


async def test_the_diff_of_a_task_without_workspace_is_not_found(desk: Any) -> None:
    task = await desk.task(None)
    with pytest.raises(NotFound) as caught:
        await desk.house.workspaces.diff(desk.house.me, WorkspaceDiff(task_id=task.id))
    assert caught.value.details["kind"] == "workspace"
