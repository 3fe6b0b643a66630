"""Whom the jobs of a shell are, once its jail is gone and its first process's pid is another's."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from kandev_sandbox.processes import Identity
from kandev_sandbox.shell import jobs
from kandev_sandbox.shell.jobs import Before

NOBODY = Before(frozenset(), 0)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A child of ours; we have the pid that the jail's first process had."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_pid_that_is_another_s_by_now_has_no_jobs(stranger: subprocess.Popen[bytes]) -> None:
    dead = Identity(os.getpid(), 1)
    assert jobs.listed(dead, lambda: None) == []
    assert not jobs.signal_job(dead, NOBODY, signal.SIGKILL, None)
    assert not jobs.signal_job(dead, NOBODY, signal.SIGKILL, stranger.pid)
    assert jobs.end_command(dead, NOBODY, 0.2)
    assert stranger.poll() is None
