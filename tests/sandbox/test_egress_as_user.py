"""The same facts about the proxy for an ordinary user, who has no right to enter a network namespace as root does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

HERE = Path(__file__).resolve().parent
UID = 64_243
DEADLINE_S = 400  # for both files; each test in them has its own


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to become another user; without root the tests are this already"
)
@pytest.mark.timeout(DEADLINE_S + 50)
def test_the_proxy_serves_the_jails_of_an_ordinary_user(tmp_path: Path, becoming: Callable[..., list[str]]) -> None:
    base = tmp_path / "home"
    base.mkdir(mode=0o700)
    os.chown(base, UID, UID)
    packages = str(Path(anyio.__file__).parents[1])
    # One bubblewrap is enough: what differs between them is nothing of the network.
    env = {"PATH": "/usr/bin:/bin", "HOME": str(base), "TMPDIR": str(base), "PYTHONDONTWRITEBYTECODE": "1",
           "KANDEV_BWRAP": "/usr/bin/bwrap",
           "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "sandbox"), packages])}  # fmt: skip
    files = [str(HERE / f"test_egress_{name}.py") for name in ("clients", "escapes")]
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", f"--rootdir={HERE.parents[1]}"]
    command = [*becoming(UID, base), sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(command, env=env, cwd=base, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
