"""The same facts for an ordinary user: these tests run again under another uid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

HERE = Path(__file__).resolve().parent
UID = 64_242


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to become another user; without root the tests are this already"
)
def test_the_jail_holds_for_an_ordinary_user(tmp_path: Path, becoming: Callable[..., list[str]]) -> None:
    base = tmp_path / "home"
    base.mkdir(mode=0o700)
    os.chown(base, UID, UID)
    packages = str(Path(anyio.__file__).parents[1])
    env = {"PATH": "/usr/bin:/bin", "HOME": str(base), "TMPDIR": str(base), "PYTHONDONTWRITEBYTECODE": "1",
           "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "sandbox"), packages])}  # fmt: skip
    files = [str(HERE / f"test_{name}.py") for name in ("jail", "forward", "host_death", "doctor", "cli")]
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", f"--rootdir={HERE.parents[1]}"]
    command = [*becoming(UID, base), sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(command, env=env, cwd=base, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
