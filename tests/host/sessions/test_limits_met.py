"""A run that fails because its jail met a limit says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kandev_bwrap import BwrapSettings, open_runtime
from kandev_host import Environment

pytestmark = pytest.mark.anyio
HOARD = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        held = bytearray(b"x") * (20 << 20)
        time.sleep(600)
os.wait()
raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("settings", "script", "told"),
    [
        (BwrapSettings(memory_limit_bytes=64 << 20), HOARD, "memory limit of 64.0 MiB"),
        (BwrapSettings(time_limit_s=0.3), "import time; time.sleep(600)", "it was ended after its time limit of 0.3 s"),
    ],
)
async def test_the_failure_of_a_run_names_the_limit(
    world: Any, tmp_path: Path, settings: BwrapSettings, script: str, told: str
) -> None:
    async with open_runtime(settings, Environment(str(tmp_path / "jails"), "0")) as jail:
        await jail.prepare(world.task.id)
        agent = await world.ended(await world.start(command=("/usr/bin/python3", "-c", script), runtime=jail))
    assert agent.status == "FAILED"
    assert told in agent.error_message
