"""The log in files: rotated by size, written by several, and read over rotations."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kandev_host.log_files import Tail, generations
from kandev_host.logs import logging_to
from kandev_host.settings import LogSettings

log = logging.getLogger("kandev_host.test")
DEADLINE_S = 60
WRITER = """
import logging, sys
from kandev_host.logs import logging_to
from kandev_host.settings import LogSettings
with logging_to(LogSettings(format="json", path=sys.argv[1], rotate_bytes=2000, rotated_files=100)):
    for number in range(150):
        logging.getLogger("writer").info("%s-%d", sys.argv[2], number)
"""


def settings(path: Path, **changed: int) -> LogSettings:
    return LogSettings(format="json", path=str(path), **{"rotate_bytes": 2000, "rotated_files": 3, **changed})


def read(path: Path) -> list[str]:
    tail = Tail(path)
    try:
        return list(tail.lines())
    finally:
        tail.close()


def test_files_are_bounded_in_size_and_number_and_for_the_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "host.log"
    (tmp_path / "host.log.7").touch()
    with logging_to(settings(path)):
        for number in range(200):
            log.info("line %d", number)
    files = [path, *(file for _, file in generations(path))]
    assert sorted(file.name for file in files) == ["host.log", "host.log.1", "host.log.2", "host.log.3"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert max(file.stat().st_size for file in files) <= 2000
    assert '"line 199"' in read(path)[-1]


def test_a_line_longer_than_a_file_may_be_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "host.log"
    with logging_to(settings(path)):
        log.info("x" * 5000)
        log.info("after")
    assert [len(line) > 2000 for line in read(path)] == [True, False]


def test_a_line_is_written_once_however_often_logging_is_set_up(tmp_path: Path) -> None:
    path = tmp_path / "host.log"
    with logging_to(settings(path)), logging_to(settings(path)):
        log.info("inner")
    with logging_to(settings(path)):
        log.info("later")
    assert [("inner" in line, "later" in line) for line in read(path)] == [(True, False), (False, True)]


def test_a_reader_that_follows_misses_nothing_and_reads_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "host.log"

    def write() -> None:
        for number in range(700):
            log.info("%d!", number)

    with logging_to(settings(path, rotated_files=200)):
        writer = threading.Thread(target=write)
        tail, lines = Tail(path), list[str]()
        writer.start()
        deadline = time.monotonic() + DEADLINE_S
        while len(lines) < 700 and time.monotonic() < deadline:
            lines += tail.lines()
            time.sleep(0.001)
        writer.join()
        lines += tail.lines()
        tail.close()
    numbers = [int(line.split('"event": "')[1].split("!")[0]) for line in lines]
    assert (numbers, tail.missed) == (list(range(700)), False)
    assert len(generations(path)) > 3  # a file is not rotated while a reader looks for the next one


def test_a_reader_says_when_files_went_before_it_read_them(tmp_path: Path) -> None:
    path = tmp_path / "host.log"
    with logging_to(settings(path)):
        log.info("first")
        tail = Tail(path)
        assert len(list(tail.lines())) == 1
        for number in range(200):
            log.info("line %d", number)
        assert '"line 199"' in list(tail.lines())[-1]
        assert tail.missed
        tail.close()


def test_two_processes_write_one_log_and_none_of_their_lines_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "host.log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "ab"]
    assert [writer.wait(DEADLINE_S) for writer in writers] == [0, 0]
    lines = [line.split('"event": "')[1].split('"')[0] for line in read(path)]
    assert sorted(lines) == sorted(f"{name}-{number}" for name in "ab" for number in range(150))


def test_a_log_that_is_emptied_or_moved_away_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "host.log"
    with logging_to(settings(path)):
        log.info("one")
        tail = Tail(path)
        assert len(list(tail.lines())) == 1
        os.truncate(path, 0)
        log.info("2")
        assert len(list(tail.lines())) == 1
        path.rename(tmp_path / "away")
        log.info("three")
        assert ['"three"' in line for line in tail.lines()] == [True]
        tail.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_and_never_rotated(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with logging_to(settings(pipe, rotate_bytes=1)):
            log.info("one")
            log.info("two")
        assert os.read(reader, 65536).count(b"\n") == 2
    finally:
        os.close(reader)
