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
DEADLINE_S = 400  # for a whole file; each test in it has its own
# Nothing in these depends on who runs them, or they run again elsewhere.
PURE = {
    "argv", "as_user", "filter", "policy", "programs", "uids", "egress_addresses", "egress_as_user", "egress_clients",
    "egress_escapes", "egress_rules", "volumes",
}  # fmt: skip
FILES = sorted(path for path in HERE.glob("test_*.py") if path.stem.removeprefix("test_") not in PURE)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to become another user; without root the tests are this already"
)
@pytest.mark.timeout(DEADLINE_S + 50)
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_jail_holds_for_an_ordinary_user(tmp_path: Path, becoming: Callable[..., list[str]], file: Path) -> None:
    base = tmp_path / "home"
    base.mkdir(mode=0o700)
    os.chown(base, UID, UID)
    packages = str(Path(anyio.__file__).parents[1])
    # With CI, examples that are drawn (hypothesis) are the same in each run, here as in the other files.
    env = {"PATH": "/usr/bin:/bin", "HOME": str(base), "TMPDIR": str(base), "PYTHONDONTWRITEBYTECODE": "1",
           **{name: os.environ[name] for name in ("CI",) if name in os.environ},
           "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "sandbox"), packages])}  # fmt: skip
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", f"--rootdir={HERE.parents[1]}"]
    command = [*becoming(UID, base), sys.executable, "-m", "pytest", *options, str(file)]
    done = subprocess.run(command, env=env, cwd=base, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
