"""The command at a pseudo terminal, as a person sees it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def at_a_terminal(home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command with a pseudo-terminal as its standard streams, and as its controlling terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kandev_host", *arguments],
        env={**os.environ, "KANDEV_HOME": str(home), "COLUMNS": "300"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    try:
        yield process, leader
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)
        os.close(leader)


def read_until(leader: int, wanted: str, timeout_s: float = 60) -> str:
    """What the terminal showed until `wanted` came."""
    text, deadline = "", time.monotonic() + timeout_s
    while wanted not in text:
        left = deadline - time.monotonic()
        assert left > 0, text
        assert select.select([leader], [], [], left)[0], text
        try:
            text += os.read(leader, 65536).decode(errors="replace")
        except OSError:  # the other side is closed (Linux says EIO)
            break
    assert wanted in text, text
    return text
