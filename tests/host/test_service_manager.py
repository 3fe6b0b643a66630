from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from kandev_host.service_manager import ServiceManager


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "OTHER": "1"}
    manager = ServiceManager.of(environ)
    assert environ == {"OTHER": "1"}
    assert (manager.listens, manager.watchdog_s) == (True, 3.0)


@pytest.mark.parametrize(
    ("environ", "listens", "watchdog_s"),
    [
        ({}, False, None),
        ({"WATCHDOG_USEC": "3000000"}, False, None),
        ({"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "1"}, False, None),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, False, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, True, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}, True, 3.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "-1"}, True, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, True, None),
    ],
)
def test_who_listens(environ: dict[str, str], listens: bool, watchdog_s: float | None) -> None:
    manager = ServiceManager.of(environ)
    assert (manager.listens, manager.watchdog_s) == (listens, watchdog_s)


def test_a_status_is_one_line_and_nobody_there_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    manager = ServiceManager(str(path))
    manager.alive()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(60)
        manager.status("degraded:\nREADY=1")
        assert listener.recv(8192) == b"STATUS=degraded: READY=1"


def test_one_that_does_not_read_keeps_nobody_for_long(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        manager = ServiceManager(str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    filler.sendto(b"x", str(path))
        manager.alive()  # returns
