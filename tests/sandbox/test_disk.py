"""What a folder takes of the disk is measured whatever is done in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kandev_sandbox import disk

KIB = 1 << 10


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_bytes_are_those_of_the_disk_and_inodes_those_of_all_files(root: int, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x" * 100 * KIB)
    found = disk.measure([root])
    by_du = subprocess.run(["du", "-s", "-B1", str(tmp_path)], capture_output=True, text=True, check=True, timeout=60)
    assert (found.bytes, found.inodes, found.complete) == (int(by_du.stdout.split()[0]), 3, True)


def test_a_sparse_file_takes_what_is_written(root: int, tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    assert disk.measure([root]).bytes < 100 * KIB


def test_a_file_with_several_names_counts_once(root: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100 * KIB)
    before = disk.measure([root])
    os.link(tmp_path / "a", tmp_path / "b")
    after = disk.measure([root])
    assert (after.bytes, after.inodes) == (before.bytes, before.inodes)


def test_links_lead_nowhere(root: int, tmp_path: Path) -> None:
    before = disk.measure([root])
    (tmp_path / "link").symlink_to("/usr")
    (tmp_path / "loop").symlink_to(".")
    assert disk.measure([root]).inodes == before.inodes + 2


def test_counting_ends_soon_after_its_bound(root: int, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    found = disk.measure([root], most_inodes=20)
    assert (found.inodes, found.complete, found.cut) == (21, False, True)


def test_counting_ends_where_one_file_has_names_without_end(root: int, tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    for number in range(1, 100):
        os.link(tmp_path / "0", tmp_path / str(number))
    found = disk.measure([root], most_inodes=20)
    assert (found.inodes, found.names, found.cut) == (2, 81, True)
    assert not disk.measure([root], most_inodes=26).cut


def test_counting_ends_while_folders_are_made_faster(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = disk._level

    def ahead(descriptor: int, mode: int | None, space: disk.Space) -> disk._Level:
        os.mkdir("deeper", dir_fd=descriptor)
        return level(descriptor, mode, space)

    monkeypatch.setattr(disk, "_level", ahead)
    assert disk.measure([root], most_inodes=500).cut


def test_what_is_no_file_does_not_stop_it(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert disk.measure([root]).inodes == 2


def test_a_closed_folder_hides_nothing_and_stays_closed(root: int, tmp_path: Path) -> None:
    (tmp_path / "closed" / "inner").mkdir(parents=True)
    (tmp_path / "closed" / "inner" / "file").write_bytes(b"x" * 100 * KIB)
    (tmp_path / "closed").chmod(0o000)
    try:
        found = disk.measure([root])
        assert (found.inodes, found.bytes > 100 * KIB) == (4, True)
        assert (tmp_path / "closed").stat().st_mode & 0o777 == 0
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_root_that_is_closed_is_counted_and_stays_closed(root: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100 * KIB)
    tmp_path.chmod(0o000)
    try:
        found = disk.measure([root])
        assert (found.inodes, found.bytes > 100 * KIB) == (2, True)
        assert tmp_path.stat().st_mode & 0o777 == 0
    finally:
        tmp_path.chmod(0o700)


def test_a_tree_of_many_levels_is_counted_to_its_end(root: int, tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    before = len(os.listdir("/proc/self/fd"))
    found = disk.measure([root])
    assert (found.inodes, found.complete) == (202, True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_deep_folder_that_moves_away_is_told(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_HELD_DESCRIPTORS", 1)
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    enter = disk._enter

    def moving(name: str, parent: int, device: int) -> tuple[int, int | None] | None:
        inner = enter(name, parent, device)
        if name == "c":
            os.rename(tmp_path / "a" / "b" / "c", tmp_path / "other" / "c")
        return inner

    monkeypatch.setattr(disk, "_enter", moving)
    found = disk.measure([root])
    assert not found.complete


def test_a_deleted_file_counts_while_it_is_open(tmp_path: Path) -> None:
    script = "import os, sys\nf = open(sys.argv[1], 'wb')\nf.write(b'x' * 102400); f.flush(); os.unlink(sys.argv[1])\n"
    script += "print('up', flush=True); input()"
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = disk.deleted([process.pid, process.pid], tmp_path.stat().st_dev)
        process.communicate("\n", timeout=60)
    assert found.bytes == 100 * KIB
