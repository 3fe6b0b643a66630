"""The runtime without a jail, as far as its contract does not say it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kandev_unjailed import HostSettings
from kandev_unjailed.runtime import HostRuntime

pytestmark = pytest.mark.anyio


async def test_a_script_that_nobody_may_run_comes_with_what_mends_it(tmp_path: Path) -> None:
    runtime = HostRuntime(HostSettings(i_understand_there_is_no_jail=True), tmp_path)
    path = tmp_path / "my agent.sh"
    path.write_text("#!/bin/sh\n")
    located = await runtime.locate(str(path))
    assert (located.ok, located.reason, located.details) == (False, f"{path} is no executable file.", {"found": True})
    subprocess.run(["sh", "-c", located.fix or ""], check=True)
    assert (await runtime.locate(str(path))).ok
