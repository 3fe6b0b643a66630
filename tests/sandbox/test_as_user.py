"""The same facts for an ordinary user: these tests run again under another uid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

HERE = Path(__file__).resolve().parent
UID = 64_242


def _reachable(path: str) -> bool:
    done = subprocess.run([path, "-c", "import sys; print(sys.version_info[:2])"], user=UID, group=UID, extra_groups=[],
                          capture_output=True, text=True, check=False, cwd="/")  # fmt: skip
    return done.returncode == 0 and done.stdout.strip() == str(sys.version_info[:2])


def _python() -> str | None:
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            if _reachable(path):
                return path
        except OSError:
            continue
    return None


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to become another user; without root the tests are this already"
)
def test_the_jail_holds_for_an_ordinary_user(tmp_path: Path) -> None:
    python = _python()
    if python is None:
        pytest.skip(f"needs a Python {sys.version_info[0]}.{sys.version_info[1]} that every user may run")
    base = Path("/var/tmp") / f"kandev-as-user-{os.getpid()}"
    base.mkdir(mode=0o700)
    os.chown(base, UID, UID)
    packages = str(Path(anyio.__file__).parents[1])
    env = {"PATH": "/usr/bin:/bin", "HOME": str(base), "TMPDIR": str(base), "PYTHONDONTWRITEBYTECODE": "1",
           "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "sandbox"), packages])}  # fmt: skip
    files = [str(HERE / f"test_{name}.py") for name in ("jail", "forward", "host_death", "doctor", "cli")]
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", f"--rootdir={HERE.parents[1]}"]
    try:
        done = subprocess.run([python, "-m", "pytest", *options, *files], user=UID, group=UID, extra_groups=[], env=env,
                              cwd=base, capture_output=True, text=True, timeout=100, check=False)  # fmt: skip
    finally:
        subprocess.run(["rm", "-rf", str(base)], check=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
