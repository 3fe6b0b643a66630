"""The same attacks on the jails of an ordinary user, which are kept from the user's own things by namespaces alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
UID = 64_244
DEADLINE_S = 400  # for all attacks of a part


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to become another user; without root the tests are this already"
)
@pytest.mark.timeout(DEADLINE_S + 50)
@pytest.mark.parametrize("part", ["gets_through", "installed", "wheel"])
def test_the_jail_holds_for_an_ordinary_user(tmp_path: Path, part: str, becoming: Callable[..., list[str]]) -> None:
    base = tmp_path / "home"
    base.mkdir(mode=0o700)
    os.chown(base, UID, UID)
    packages = str(Path(anyio.__file__).parents[1])
    env = {"PATH": "/usr/bin:/bin", "HOME": str(base), "TMPDIR": str(base), "PYTHONDONTWRITEBYTECODE": "1",
           "PYTHONPATH": os.pathsep.join([str(ROOT / "sandbox"), packages])}  # fmt: skip
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", f"--rootdir={ROOT}", "-k", part]
    command = [*becoming(UID, base), sys.executable, "-m", "pytest", *options, str(HERE / "test_escapes.py")]
    done = subprocess.run(command, env=env, cwd=base, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
