"""Another jail of the same place swaps a folder for a link while this one is built: nothing comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import Bind, Policy, SandboxError, mountinfo, mountpoints

pytestmark = pytest.mark.anyio


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    path = tmp_path / "tool"
    path.write_text("tool\n")
    path.chmod(0o666)
    return path


@pytest.fixture
def outside(tmp_path: Path, sandbox: Any) -> Path:
    """Of the host, and writable for whoever the jail runs as."""
    folder = tmp_path / "outside"
    folder.mkdir()
    if sandbox.policy.uid is not None:
        os.chown(folder, sandbox.policy.uid, sandbox.policy.uid)
    return folder


def swapping(home: Path, target: str) -> Callable[[Policy], None]:
    """`mountpoints.make`, after which the folder of the mount point is a link."""
    make = mountpoints.make

    def made(policy: Policy) -> None:
        make(policy)
        (home / ".x").rename(home / "away")
        (home / ".x").symlink_to(target)

    return made


async def test_a_bind_is_where_it_was_to_be(sandbox: Any, tool: Path) -> None:
    script = "cat ~/.x/tool; echo x >> ~/.x/tool; rm -f ~/.x/tool; cat ~/.x/tool"
    done = await sandbox.sh(script, binds=(Bind(tool, "/home/agent/.x/tool"),))
    assert done.out == "tool\ntool\n"
    assert "Read-only file system" in done.err


async def test_a_bind_that_may_be_written_can_be(sandbox: Any, tool: Path) -> None:
    await sandbox.sh("echo x > tool", binds=(Bind(tool, "/workspace/tool", read_only=False),))
    assert (await sandbox.sh("cat tool", binds=(Bind(tool, "/workspace/tool"),))).out == "x\n"


async def test_a_bound_folder_is_read_only_with_all_that_is_in_it(sandbox: Any, tmp_path: Path) -> None:
    (tmp_path / "library" / "inner").mkdir(parents=True)
    (tmp_path / "library").chmod(0o777)
    (tmp_path / "library" / "inner").chmod(0o777)
    done = await sandbox.sh("touch ~/l/x ~/l/inner/x", binds=(Bind(tmp_path / "library", "/home/agent/l"),))
    assert done.err.count("Read-only file system") == 2


@pytest.mark.parametrize("outer", ["/opt/shared", "/home/agent/shared"])
async def test_a_bind_in_a_bind_that_may_be_written(sandbox: Any, tool: Path, outside: Path, outer: str) -> None:
    binds = (Bind(tool, f"{outer}/a/tool"), Bind(outside, outer, read_only=False))
    done = await sandbox.sh(f"cat {outer}/a/tool; touch {outer}/new; echo x >> {outer}/a/tool", binds=binds)
    assert done.out == "tool\n"
    assert "Read-only file system" in done.err
    assert sorted(os.listdir(outside)) == ["a", "new"]


async def test_a_link_in_such_a_bind_leads_nowhere(
    sandbox: Any, tool: Path, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o777)
    target.chmod(0o777)
    monkeypatch.setattr(mountpoints, "make", swapping(outside, f"/oldroot{target}"))
    with pytest.raises(SandboxError, match="was replaced"):
        await sandbox.sh("true", binds=(Bind(outside, "/opt/o", read_only=False), Bind(tool, "/opt/o/.x/tool")))
    assert os.listdir(target) == []


@pytest.mark.parametrize("target", ["/tmp", "away", "/newroot/tmp"])
async def test_a_folder_that_becomes_a_link_ends_the_start(
    sandbox: Any, tool: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(mountpoints, "make", swapping(sandbox.policy.home, target))
    with pytest.raises(SandboxError, match=r"was replaced|not built"):
        await sandbox.sh("echo ran", binds=(Bind(tool, "/home/agent/.x/tool"),))


async def test_a_link_out_of_the_jail_makes_nothing_there(
    sandbox: Any, tool: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoints, "make", swapping(sandbox.policy.home, f"/oldroot{outside}"))
    with pytest.raises(SandboxError, match="was replaced"):
        await sandbox.sh("echo ran", binds=(Bind(tool, "/home/agent/.x/tool"),))
    assert os.listdir(outside) == []


async def test_mounts_of_a_process_that_has_ended_are_none() -> None:
    assert mountinfo.places(2**22 + 1) == {}


def test_mounts_are_told_with_whether_they_are_read_only() -> None:
    assert "/" in mountinfo.places("self")
