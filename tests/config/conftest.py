"""What config/ ships, read by the tools that are going to read it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LEAN = Path(__file__).resolve().parents[2] / "config" / "images" / "lean"
TIMEOUT_S = 280


@pytest.fixture(scope="session")
def lean_cache() -> Path:
    """Outside of the checkout: a second run fetches nothing."""
    return Path(os.environ.get("KANDEV_TEST_AGENTS") or Path.home() / ".cache/kandev-host-tests") / "lean"


@pytest.fixture(scope="session")
def lean(lean_cache: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the script with these arguments, and these variables instead of the process's own."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, LEAN, "--cache", lean_cache, *arguments]
        told = {**os.environ, **environment}
        return subprocess.run(command, check=False, env=told, capture_output=True, text=True, timeout=TIMEOUT_S)

    return run
