from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, 70_001, 70_001)
    return path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "sandbox"), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "kandev_sandbox", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=30, check=False)


def test_a_denial_is_told_once_with_the_option_that_allows_it(folder: Path) -> None:
    script = "for n in 1 2 3; do curl -s https://example.org/; done; echo done"
    done = run(folder, "--network", "allowlist", "--allow", "@npm", "--", "sh", "-c", script)
    assert done.stdout == "done\n"
    assert done.stderr == (
        "kandev-sandbox: example.org:443 is not in the allowlist of this jail; to allow it: add --allow example.org\n"
    )


def test_a_name_without_an_allowlist_is_refused_with_the_fix(folder: Path) -> None:
    done = run(folder, "--allow", "pypi.org", "--", "true")
    assert (done.returncode, done.stderr.splitlines()[1]) == (125, "fix: set network to allowlist")


def test_an_unknown_preset_is_refused_with_those_there_are(folder: Path) -> None:
    done = run(folder, "--network", "allowlist", "--allow", "@pipy", "--", "true")
    assert done.returncode == 125
    assert "@npm, " not in done.stderr
    assert "npm, " in done.stderr
