"""What an agent can neither change nor move in its own workspace, and that nothing it left there turns that around."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import Policy, PolicyError, SandboxError, StagingFailed, pins

pytestmark = pytest.mark.anyio
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the stage")


@pytest.fixture
def workspace(sandbox: Any) -> Path:
    """A repository, as a clone makes it."""
    folder: Path = sandbox.policy.workspace
    git = ["git", "-c", "init.defaultBranch=main"]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run([*git, "init", "--quiet", "--template=", str(folder)], check=True, env=env)
    (folder / "AGENTS.md").write_text("be kind\n")
    (folder / "tools" / "deep").mkdir(parents=True)
    (folder / "tools" / "deep" / "run.sh").write_text("true\n")
    own(folder, sandbox.policy.uid)
    return folder


def own(folder: Path, uid: int | None) -> None:
    for path in (folder, *folder.rglob("*")):
        if uid is not None:
            os.chown(path, uid, uid, follow_symlinks=False)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "attack",
    [
        "echo '[core]' >> .git/config",
        "mv .git/config .git/old",
        "rm .git/config",
        "printf x > .git/new && mv .git/new .git/config",
        "chmod 666 .git/config && echo x >> .git/config",
        "git config core.fsmonitor 'touch x'",
        "echo 'touch x' > .git/hooks/pre-commit",
        "rmdir .git/hooks",
        "mv .git/hooks .git/old",
        "mkdir evil && mv -T evil .git/hooks",
        "ln -sfn /tmp .git/hooks && test -L .git/hooks",
        "mv .git other",
        "mkdir evil && mv -T evil .git",
        "umount .git/hooks",
        "mount -o remount,rw,bind /workspace/.git/config",
    ],
)
async def test_gits_hooks_and_configuration_stay(sandbox: Any, workspace: Path, attack: str, nested: bool) -> None:
    done = await sandbox.sh(attack, nested=nested)
    assert done.code != 0, done.out
    assert list((workspace / ".git" / "hooks").iterdir()) == []
    assert "fsmonitor" not in (workspace / ".git" / "config").read_text()


@pytest.mark.parametrize("nested", [False, True])
async def test_no_user_namespace_undoes_a_pin(sandbox: Any, workspace: Path, nested: bool) -> None:
    script = "for way in 'umount -l' 'mount -o remount,rw,bind'; do $way .git/config; done; echo x >> .git/config"
    await sandbox.sh(f'unshare --user --map-root-user --mount sh -c "{script}"', nested=nested)
    assert "x\n" not in (workspace / ".git" / "config").read_text()


async def test_commits_and_branches_work_as_ever(sandbox: Any, workspace: Path) -> None:
    script = (
        "set -e; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n"
        "git add -A; git commit -qm one; git switch -qc other; git rm -q AGENTS.md; git commit -qm two\n"
        "git worktree add -q /tmp/tree main; git stash list; git gc -q; git tag v1; git log --oneline | wc -l"
    )
    done = await sandbox.sh(script)
    assert (done.out.strip(), done.err) == ("2", "")


async def test_without_pins_the_configuration_can_be_written(sandbox: Any, workspace: Path) -> None:
    assert (await sandbox.sh("git config a.b c && touch .git/hooks/x", pin_git=False)).code == 1
    assert (await sandbox.sh("git config a.b c && mkdir .git/hooks", pin_git=False)).code == 0


@pytest.mark.parametrize(
    "attack",
    [
        "echo x >> AGENTS.md",
        "rm AGENTS.md",
        "mv AGENTS.md x",
        "echo x > tools/deep/run.sh",
        "mv tools x",
        "mv tools/deep x",
        "rm -rf tools",
        "sed -i s/kind/rude/ AGENTS.md",
    ],
)
async def test_a_protected_path_and_all_above_it_stay(sandbox: Any, workspace: Path, attack: str) -> None:
    await sandbox.sh(attack, protected=("AGENTS.md", "tools/deep/run.sh", "none"))
    assert (workspace / "AGENTS.md").read_text() == "be kind\n"
    assert (workspace / "tools" / "deep" / "run.sh").read_text() == "true\n"


async def test_a_protected_folder_is_closed_with_all_in_it(sandbox: Any, workspace: Path) -> None:
    done = await sandbox.sh("touch tools/x; touch tools/deep/x; touch ./x", protected=("tools", "tools/deep"))
    assert done.err.count("Read-only file system") == 2
    assert (workspace / "x").exists()


async def test_what_stands_beside_a_protected_path_can_be_written(sandbox: Any, workspace: Path) -> None:
    assert (await sandbox.sh("touch tools/deep/new tools/new", protected=("tools/deep/run.sh",))).code == 0


async def test_what_is_not_there_can_be_made(sandbox: Any, workspace: Path) -> None:
    assert (await sandbox.sh("mkdir .claude && touch .claude/x", protected=(".claude",))).code == 0


@pytest.mark.parametrize("name", [".git/hooks", ".git/config", "AGENTS.md", "tools/deep", ".git"])
async def test_a_planted_link_redirects_no_mount(sandbox: Any, workspace: Path, tmp_path: Path, name: str) -> None:
    """Neither read-only nor made: what the link leads to is as it was."""
    target = tmp_path / "target"
    target.mkdir()
    own(target, sandbox.policy.uid)
    path = workspace / name
    (workspace / ".git" / "hooks").mkdir()
    path.rename(tmp_path / "away")
    path.symlink_to(target / "made")
    own(workspace, sandbox.policy.uid)
    done = await sandbox.sh("echo started", protected=("AGENTS.md", "tools/deep/run.sh"))
    assert done.out == "started\n"
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("name", [".git/config", "AGENTS.md"])
async def test_what_is_no_file_is_left_alone(sandbox: Any, workspace: Path, name: str) -> None:
    (workspace / name).unlink()
    os.mkfifo(workspace / name)
    own(workspace, sandbox.policy.uid)
    assert (await sandbox.sh("echo started", protected=("AGENTS.md",))).out == "started\n"


async def test_a_git_file_is_pinned_as_a_whole(sandbox: Any, workspace: Path) -> None:
    (workspace / ".git").rename(workspace / "elsewhere")
    (workspace / ".git").write_text("gitdir: elsewhere\n")
    own(workspace, sandbox.policy.uid)
    done = await sandbox.sh("echo 'gitdir: /tmp/evil' > .git")
    assert "Read-only file system" in done.err


async def test_pins_leave_no_descriptor_inside(sandbox: Any, workspace: Path) -> None:
    assert (await sandbox.sh("ls /proc/$$/fd; true", protected=("tools/deep",))).out.split() == ["0", "1", "2"]
    done = await sandbox.sh("for fd in /proc/1/fd/*; do readlink $fd; done", protected=("tools/deep",))
    assert all(target.startswith(("pipe:", "anon_inode:")) for target in done.out.split())


async def test_pins_leave_no_descriptor_outside(sandbox: Any, workspace: Path) -> None:
    await sandbox.sh("true", protected=("tools/deep",))
    before = sorted(os.listdir("/proc/self/fd"))
    await sandbox.sh("true", protected=("tools/deep",))
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_what_is_swapped_between_the_check_and_the_mount_ends_the_start(
    sandbox: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another jail of the same workspace would, at the worst moment."""
    walk, done = pins.walk, []
    folder = os.open(workspace, os.O_PATH)

    def swapping(root: int, path: Any) -> int | None:
        descriptor = walk(root, path)
        if str(path) == "AGENTS.md" and not done:
            done.append(True)
            os.rename("AGENTS.md", "old", src_dir_fd=folder, dst_dir_fd=folder)
            os.symlink("old", "AGENTS.md", dir_fd=folder)
        return descriptor

    monkeypatch.setattr(pins, "walk", swapping)
    with pytest.raises(SandboxError, match=r"was replaced|Race condition"):
        await sandbox.sh("echo x >> AGENTS.md", protected=("AGENTS.md",))
    os.close(folder)
    assert (workspace / "old").read_text() == "be kind\n"


@as_root
async def test_a_swap_is_told_with_its_path(sandbox: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(pin: Any, closed: str) -> None:
        pass

    monkeypatch.setattr(pins, "_fasten", forgetful)
    with pytest.raises(StagingFailed, match=r"/workspace/.git\S* was replaced"):
        await sandbox.sh("true")


@pytest.mark.parametrize("path", ["", ".", "/etc", "../x", "a/../b", "a\0"])
def test_only_paths_of_the_workspace_can_be_protected(tmp_path: Path, path: str) -> None:
    with pytest.raises(PolicyError, match="no path of the workspace"):
        Policy(workspace=tmp_path, protected=(path,))
