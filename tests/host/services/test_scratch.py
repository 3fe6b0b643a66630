"""Shells without a task, in real jails."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.protocol.actions.shells import ShellOpen, ShellRun
from kandev_host.services.shells import changes

pytestmark = pytest.mark.anyio


async def test_what_a_command_changes_in_a_scratch_workspace_is_known(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LOOK_S", 60.0)  # however slow the machine is
    shell = (await house.shells.open(house.me, ShellOpen())).shell

    async def changed(command: str) -> Any:
        request = ShellRun(shell_id=shell.id, command=command, timeout_s=60)
        return (await house.shells.run(house.me, request)).changed_files

    assert await changed("echo a > a; mkdir d; echo b > d/b") == ["a", "d/b"]
    assert await changed("rm a") == ["a"]
    assert await changed("cat d/b") == []
