"""`kandev-host exec`, as other programs use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path: Path) -> None:
    line = f"{sys.executable} -m kandev_host exec 'seq 10000000' | head -1"
    env = {**os.environ, "KANDEV_HOME": str(tmp_path / "data")}
    done = subprocess.run(["sh", "-c", line], env=env, cwd=tmp_path, check=False, capture_output=True, timeout=100)
    assert done.stdout == b"1\n"
    assert done.stderr == b""
