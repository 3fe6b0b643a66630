"""Reading a folder that somebody hostile writes to: what is refused, what is bounded, and races that must be lost."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kandev_sandbox import beneath
from kandev_sandbox.reading import Entry, FileMissing, FileRefused, list_tree, read_part

SECRET = b"the host's secret"
ROUNDS = 400
LIMIT = 1 << 20


@pytest.fixture(params=["openat2", "component by component"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of resolving a path."""
    if request.param == "openat2":
        assert beneath.has_openat2()
    else:
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(place: Path, way: None) -> Iterator[int]:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def read(folder: int, path: str, offset: int = 0, limit: int = LIMIT) -> bytes:
    return read_part(folder, path, offset, limit).content


def names(entries: list[Entry]) -> list[str]:
    return [entry.path for entry in entries]


# --- contents ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_with_its_size(folder: int, place: Path) -> None:
    (place / "a").mkdir()
    (place / "a/b.txt").write_bytes(b"0123456789")
    part = read_part(folder, "a/b.txt", 2, 3)
    assert (part.content, part.offset, part.size) == (b"234", 2, 10)


def test_behind_the_end_there_is_nothing(folder: int, place: Path) -> None:
    (place / "a").write_bytes(b"0123")
    assert read_part(folder, "a", (1 << 63) - 1, LIMIT).content == b""


def test_an_enormous_file_costs_what_is_asked_for(folder: int, place: Path) -> None:
    with (place / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    part = read_part(folder, "sparse", 1 << 39, 100)
    assert (part.content, part.size) == (bytes(100), 1 << 40)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside/secret", "a/../../outside/secret", "a\0b", "x" * 4096])
def test_a_path_that_is_none_below_is_refused(folder: int, outside: Path, path: str) -> None:
    with pytest.raises(FileRefused, match="no path below"):
        read(folder, path)


@pytest.mark.parametrize("path", ["link", "folder/secret", "self/link", "chain"])
def test_no_link_is_followed(folder: int, place: Path, outside: Path, path: str) -> None:
    (place / "link").symlink_to(outside / "secret")
    (place / "folder").symlink_to(outside)
    (place / "self").symlink_to(".")
    (place / "chain").symlink_to("link")
    with pytest.raises(FileRefused, match="symbolic link"):
        read(folder, path)


def test_a_link_to_a_descriptor_of_the_host_is_not_followed(folder: int, place: Path) -> None:
    (place / "fd").symlink_to("/proc/self/fd")
    with pytest.raises(FileRefused):
        read(folder, f"fd/{folder}/workspace")


def test_another_file_system_is_not_entered(way: None) -> None:
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileRefused):
            read(descriptor, "proc/self/environ")
    finally:
        os.close(descriptor)


def test_a_pipe_is_refused_without_waiting(folder: int, place: Path) -> None:
    os.mkfifo(place / "pipe")
    with pytest.raises(FileRefused, match="no regular file"):
        read(folder, "pipe")


def test_a_writer_of_a_pipe_does_not_hear_of_it(folder: int, place: Path) -> None:
    os.mkfifo(place / "pipe")
    with pytest.raises(FileRefused):
        read(folder, "pipe")
    with pytest.raises(OSError, match="No such device or address"):  # nobody has it open
        os.open(place / "pipe", os.O_WRONLY | os.O_NONBLOCK)


def test_a_socket_is_refused(folder: int, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(place)  # its name would be too long
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        with pytest.raises(FileRefused, match="no regular file"):
            read(folder, "socket")


def test_a_folder_is_no_content(folder: int, place: Path) -> None:
    (place / "a").mkdir()
    with pytest.raises(FileRefused, match="directory"):
        read(folder, "a")


def test_a_lease_does_not_delay(folder: int, place: Path) -> None:
    (place / "leased").write_bytes(b"x")
    with (place / "leased").open("r+b") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(file, fcntl.F_SETSIG, 23)  # SIGURG: ignored where nobody handles it
        with pytest.raises(FileRefused, match="cannot be opened"):
            read(folder, "leased")
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def test_what_is_not_there_is_missing(folder: int, place: Path) -> None:
    (place / "file").touch()
    for path in ("gone", "gone/file", "file/below", "x" * 300):
        with pytest.raises(FileMissing):
            read(folder, path)


def test_a_name_that_is_not_utf_8_is_read(folder: int, place: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    (place / name).write_bytes(b"x")
    assert names(list_tree(folder, "", 1, 10)) == [name]
    assert read(folder, name) == b"x"


# --- listings ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(place: Path) -> Path:
    for path in ("b/c/d", "a/x"):
        (place / path).mkdir(parents=True)
    for path in ("b.txt", "b/1", "b/c/2", "a/x/3"):
        (place / path).write_text(path)
    (place / "link").symlink_to("b")
    return place


ALL = ["a", "a/x", "a/x/3", "b", "b/1", "b/c", "b/c/2", "b/c/d", "b.txt", "link"]


def test_a_listing_is_in_order_and_enters_no_link(folder: int, tree: Path) -> None:
    assert names(list_tree(folder, "", 64, 100)) == ALL


def test_a_listing_goes_no_deeper_than_asked(folder: int, tree: Path) -> None:
    assert names(list_tree(folder, ".", 1, 100)) == ["a", "b", "b.txt", "link"]
    assert names(list_tree(folder, "b", 1, 100)) == ["b/1", "b/c"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10])
def test_pages_of_a_listing_are_the_listing(folder: int, tree: Path, limit: int) -> None:
    pages: list[str] = []
    while page := names(list_tree(folder, "", 64, limit, after=pages[-1] if pages else "")):
        assert len(page) <= limit
        pages += page
    assert pages == ALL


def test_entries_say_what_they_are(folder: int, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    (tree / "b.txt").chmod(0o640)
    found = {entry.path: entry for entry in list_tree(folder, "", 1, 100)}
    assert [found[name].kind for name in ("a", "b.txt", "link", "pipe")] == ["directory", "file", "symlink", "other"]
    assert (found["b.txt"].size, found["b.txt"].mode, found["link"].target) == (5, 0o640, "b")


@pytest.mark.parametrize("path", ["link", "link/c"])
def test_a_folder_behind_a_link_is_not_listed(folder: int, tree: Path, path: str) -> None:
    with pytest.raises(FileRefused):
        list_tree(folder, path, 1, 100)


def test_a_file_is_not_listed(folder: int, tree: Path) -> None:
    with pytest.raises(FileRefused, match="no folder"):
        list_tree(folder, "b.txt", 1, 100)
    with pytest.raises(FileMissing):
        list_tree(folder, "b.txt/below", 1, 100)


def test_of_many_files_the_first_in_order_are_listed(folder: int, place: Path) -> None:
    for number in range(3000):
        (place / f"{number:04}").touch()
    assert names(list_tree(folder, "", 64, 3)) == ["0000", "0001", "0002"]


def test_folders_deeper_than_any_path_are_listed_as_far_as_asked(folder: int, place: Path) -> None:
    here = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(100):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    before = len(os.listdir("/proc/self/fd"))
    page = list_tree(folder, "", 64, 40)
    page += list_tree(folder, "", 64, 40, after=page[-1].path)
    assert len(page) == 64
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_listing_that_takes_too_long_is_given_up(folder: int, tree: Path) -> None:
    with pytest.raises(TimeoutError):
        list_tree(folder, "", 64, 100, timeout_s=-1)


# --- races ------------------------------------------------------------------------------------------------------------

_SWAP = """
import ctypes, os, sys
place, outside, what = sys.argv[1:]
os.chdir(place)
libc = ctypes.CDLL(None)
if what == "file":  # a file and a link to the secret change places
    open("a", "w").close()
    os.symlink(f"{outside}/secret", "b")
else:  # a folder and a link to the secret's folder do
    os.makedirs("a")
    open("a/secret", "w").close()
    os.symlink(outside, "b")
print("ready", flush=True)
while True:
    libc.renameat2(-100, b"a", -100, b"b", 2)
"""


@pytest.fixture
def swap(place: Path, outside: Path) -> Iterator[Callable[[str], None]]:
    """Starts somebody who swaps what stands at `a`, for as long as the test lasts."""
    started: list[subprocess.Popen[str]] = []

    def start(what: str) -> None:
        command = [sys.executable, "-c", _SWAP, str(place), str(outside), what]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("what", "path"), [("file", "a"), ("folder", "a/secret")])
def test_a_swap_for_a_link_never_leads_out(folder: int, swap: Callable[[str], None], what: str, path: str) -> None:
    swap(what)
    outcomes: Counter[str] = Counter()
    while outcomes.total() < ROUNDS or len(outcomes) < 2:  # both happen, so that the race is really run
        try:
            content = read(folder, path)
        except (FileMissing, FileRefused):
            outcomes["refused"] += 1
        else:
            assert content == b""
            outcomes["read"] += 1


def test_a_swap_never_lists_what_is_outside(folder: int, swap: Callable[[str], None], outside: Path) -> None:
    (outside / "canary").touch()
    swap("folder")
    for _ in range(ROUNDS):
        assert not [entry for entry in list_tree(folder, "", 3, 100) if "canary" in entry.path]
