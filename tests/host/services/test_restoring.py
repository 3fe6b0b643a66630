"""A restore while shells work in the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.errors import Conflict
from kandev_host.protocol.actions.shells import ShellJobs, ShellOpen, ShellRun, ShellSignal
from kandev_host.protocol.actions.snapshots import WorkspaceRestore, WorkspaceSnapshot

pytestmark = pytest.mark.anyio


class Bench:
    """A workspace with a snapshot."""

    def __init__(self, house: Any, task_id: str, snapshot_id: str) -> None:
        self.house = house
        self.task_id = task_id
        self.snapshot_id = snapshot_id

    async def shell(self, **how: Any) -> str:
        return str((await self.house.shells.open(self.house.me, ShellOpen(task_id=self.task_id, **how))).shell.id)

    async def run(self, shell_id: str, command: str) -> Any:
        request = ShellRun(shell_id=shell_id, command=command, timeout_s=120)
        return await self.house.shells.run(self.house.me, request)

    async def restore(self, *, force: bool = False) -> Any:
        request = WorkspaceRestore(task_id=self.task_id, snapshot_id=self.snapshot_id, force=force)
        return await self.house.snapshots.restore(self.house.me, request)


@pytest.fixture
async def bench(desk: Any, repository: Path) -> Bench:
    workspace = await desk.workspace(repository)
    taken = await desk.house.snapshots.take(desk.house.me, WorkspaceSnapshot(task_id=workspace.id))
    return Bench(desk.house, workspace.id, taken.snapshot.id)


async def test_a_command_that_runs_in_a_shell_holds_a_restore_back(bench: Bench) -> None:
    shell_id = await bench.shell()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.run, shell_id, "sleep 600")
            while not any(live.waiting for live in bench.house.shells._keeper.live):
                await bench.house.arrived.wait()
            with pytest.raises(Conflict, match=shell_id) as caught:
                await bench.restore()
            assert caught.value.details["shells"] == [shell_id]
            assert (await bench.restore(force=True)).exact
            await bench.house.shells.signal(bench.house.me, ShellSignal(shell_id=shell_id, signal="KILL"))


async def test_what_a_command_left_in_the_background_holds_a_restore_back(bench: Bench) -> None:
    shell_id = await bench.shell()
    await bench.run(shell_id, "sleep 600 & :")
    with pytest.raises(Conflict, match="runs commands"):
        await bench.restore()
    (job,) = (await bench.house.shells.jobs(bench.house.me, ShellJobs(shell_id=shell_id))).jobs
    await bench.house.shells.signal(bench.house.me, ShellSignal(shell_id=shell_id, signal="KILL", pid=job.pid))
    while (await bench.house.shells.jobs(bench.house.me, ShellJobs(shell_id=shell_id))).jobs:
        await anyio.lowlevel.checkpoint()
    assert (await bench.restore()).exact


async def test_a_terminal_holds_a_restore_back(bench: Bench) -> None:
    shell_id = await bench.shell(pty=True)
    with pytest.raises(Conflict, match=f"{shell_id} is a terminal"):
        await bench.restore()
    assert (await bench.restore(force=True)).exact


async def test_a_shell_that_only_stands_there_holds_nothing_back(bench: Bench) -> None:
    shell_id = await bench.shell()
    await bench.run(shell_id, "echo more >> a.txt")
    assert (await bench.restore()).exact
    assert (await bench.run(shell_id, "cat a.txt")).stdout == "one\n"


async def test_no_command_begins_while_the_files_are_restored(bench: Bench) -> None:
    shell_id = await bench.shell()
    async with bench.house.shells.quiet.of(bench.task_id):
        with pytest.raises(Conflict, match="being restored"):
            await bench.run(shell_id, "echo x > x")
    assert (await bench.run(shell_id, "test -e x")).exit_code == 1
