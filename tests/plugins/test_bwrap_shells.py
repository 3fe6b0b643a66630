"""Shells and terminals of the runtime bwrap, as the host's services see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_bwrap import BwrapSettings
from kandev_bwrap import open_runtime as open_bwrap
from kandev_host import Environment, ProcessSpec, errors

pytestmark = pytest.mark.anyio
DEADLINE_S = 60


@pytest.fixture
async def bwrap(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    async with open_bwrap(BwrapSettings(), Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        yield made


def shell_of(**fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("/bin/sh",), **fields)


async def test_a_shell_that_was_killed_is_unavailable(bwrap: Any) -> None:
    with anyio.fail_after(DEADLINE_S):
        async with bwrap.open_shell(shell_of()) as shell, anyio.create_task_group() as group:

            async def run() -> None:
                with pytest.raises(errors.Unavailable):
                    await shell.run("sleep 600")

            group.start_soon(run)
            while not await shell.jobs():
                await anyio.sleep(0.01)
            await shell._shell.kill()
            await shell.wait()


async def test_a_terminal_is_recorded_counted_and_ended(bwrap: Any) -> None:
    spec = ProcessSpec(workspace_id="w1", command=("bash", "--norc", "-i"), labels={"shell": "s2"})
    with anyio.fail_after(DEADLINE_S):
        async with bwrap.open_terminal(spec, 80, 24) as terminal:
            await terminal.receive()
            assert [dict(owned.labels) for owned in await bwrap.list_owned()] == [{"shell": "s2"}]
            assert (await terminal.stats()).pids
            await terminal.terminate()
            assert await terminal.wait() == 129
        assert await bwrap.list_owned() == []


async def test_a_terminal_of_a_missing_command_is_unavailable(bwrap: Any) -> None:
    with pytest.raises(errors.Unavailable):
        async with bwrap.open_terminal(ProcessSpec(workspace_id="w1", command=("no-such",)), 80, 24):
            pass
