from __future__ import annotations

import os
from pathlib import Path

import pytest

from kandev_sandbox import PolicyError, SandboxError, SharedFile, Uids, UidsExhausted, give, uids

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chown")


def test_a_workspace_keeps_its_uid(tmp_path: Path) -> None:
    assert Uids(tmp_path / "uids").of(tmp_path / "a") == Uids(tmp_path / "uids").of(tmp_path / "a")


def test_two_workspaces_never_share_a_uid(tmp_path: Path) -> None:
    uids = Uids(tmp_path / "uids", count=50)
    assert len({uids.of(tmp_path / str(number)) for number in range(50)}) == 50


def test_an_exhausted_range_says_so(tmp_path: Path) -> None:
    uids = Uids(tmp_path / "uids", count=1)
    uids.of(tmp_path / "a")
    with pytest.raises(UidsExhausted):
        uids.of(tmp_path / "b")


def test_a_uid_is_not_given_up_while_its_folder_exists(tmp_path: Path) -> None:
    uids = Uids(tmp_path / "uids")
    uids.of(tmp_path)
    with pytest.raises(SandboxError, match="still exists"):
        uids.release(tmp_path)


def test_a_uid_is_free_again_when_its_folder_is_gone(tmp_path: Path) -> None:
    uids = Uids(tmp_path / "uids", count=1)
    uids.of(tmp_path / "a")
    uids.release(tmp_path / "a")
    uids.of(tmp_path / "b")


def test_the_claims_are_the_hosts_alone(tmp_path: Path) -> None:
    Uids(tmp_path / "uids")
    assert (tmp_path / "uids").stat().st_mode & 0o777 == 0o700


@as_root
def test_a_tree_changes_hands_and_what_its_links_point_to_does_not(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "link").symlink_to(outside)
    give(tree, 70_000)
    assert {path.lstat().st_uid for path in (tree, tree / "folder", tree / "folder" / "link")} == {70_000}
    assert outside.stat().st_uid == 0


@as_root
def test_a_file_linked_from_outside_is_not_taken_over(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "object").write_text("")
    os.link(tmp_path / "object", tree / "object")
    with pytest.raises(SharedFile, match="hard-linked"):
        give(tree, 70_000)
    assert tree.stat().st_uid == 0


@as_root
def test_files_linked_within_the_tree_change_hands(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    os.link(tmp_path / "a", tmp_path / "b")
    give(tmp_path, 70_000)
    assert (tmp_path / "b").stat().st_uid == 70_000


@as_root
@pytest.mark.parametrize("folder", ["/", "/usr", "/tmp", "/etc", "/usr/bin", "/var/lib"])
def test_no_folder_of_the_system_changes_hands(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setattr(uids, "give", lambda *_: pytest.fail("it was given away"))
    monkeypatch.setattr(uids, "STATE", Path("/nowhere"))
    with pytest.raises(PolicyError):
        uids.owner_of(Path(folder), own=True)


def test_what_is_no_folder_has_no_owner(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PolicyError, match="mkdir -p"):
        uids.owner_of(tmp_path / "missing", own=False)
    with pytest.raises(PolicyError, match="no folder"):
        uids.owner_of(tmp_path / "file", own=False)


def test_a_claim_that_goes_while_all_are_read_is_no_fault(tmp_path: Path) -> None:
    claims = Uids(tmp_path / "uids")
    (tmp_path / "uids" / "7").symlink_to("gone")
    assert claims.of(tmp_path / "a") == claims.of(tmp_path / "a")
