"""`kandev-host workspace` on a workspace that an agent really worked in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def ask(home: Path) -> Callable[..., Any]:
    """Run `kandev-host` with these arguments on that host; its status and what it wrote, as bytes."""

    def run(*arguments: str) -> tuple[int, bytes, bytes]:
        command = [sys.executable, "-m", "kandev_host", *arguments]
        env = {**os.environ, "KANDEV_HOME": str(home)}
        done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=100)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_workspace_is_shown_read_and_deleted(ask: Callable[..., Any], home: Path, repository: Path) -> None:
    (repository / "bytes").write_bytes(bytes(range(256)))
    author = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for command in (["add", "-A"], [*author, "commit", "-qm", "bytes"]):
        subprocess.run(["git", *command], cwd=repository, check=True, capture_output=True)
    status, _, error = ask(
        "run", "Say hello", "--agent", "demo", "--repo", str(repository), "--yes", "--policy", "contained"
    )
    assert status == 0, error
    task = next(path.name for path in (home / "workspaces").iterdir())
    status, out, _ = ask("workspace", "get", task)
    assert (status, b"branch:" in out, b"needed by:" in out) == (0, True, True)
    assert b"bytes" in ask("workspace", "files", task)[1]
    assert ask("workspace", "read", task, "bytes")[1] == bytes(range(256))
    assert ask("workspace", "read", task, "bytes", "--offset", "250", "--limit", "3")[1] == bytes(range(250, 253))
    status, _, error = ask("workspace", "read", task, "../x")
    assert (status, b"leads upwards" in error) == (1, True)
    status, out, error = ask("workspace", "delete", task, "--force", "--yes")
    assert (status, b"Deleted the workspace" in out) == (0, True), error
    assert not (home / "workspaces" / task).exists()
    assert b"there was none" in ask("workspace", "delete", task, "--yes")[1]
