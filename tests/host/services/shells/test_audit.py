"""What is left of commands: rows, events, search hits; and what a host that died leaves of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import pytest

from kandev_host.errors import StorageFull
from kandev_host.interfaces import Put
from kandev_host.models import Command, ShellRow, now
from kandev_host.protocol.actions import shells as wire
from kandev_host.protocol.actions.search import SearchQuery
from kandev_host.services.shells.changes import Changes

pytestmark = pytest.mark.anyio


async def test_a_command_is_written_down_before_it_runs(bench: Any) -> None:
    shell = await bench.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, shell, "wait")
        await bench.runtime.shells[0].waiting.wait()
        (command,) = await bench.commands()
        assert (command.command, command.state, command.cwd) == ("wait", "running", "/workspace")
        assert bench.told("shell.command")[0]["command"]["state"] == "running"
        bench.runtime.shells[0].go.set()


async def test_the_audit_says_what_ran_where_by_whom_and_how_it_ended(bench: Any) -> None:
    task = await bench.task()
    shell = await bench.open(task_id=task.id)
    await bench.run(shell, "cd /tmp")
    await bench.run(shell, "say out\nerr bad\nexit 2")
    command = (await bench.commands())[-1]
    assert (command.shell_id, command.task_id, command.created_by) == (shell.id, task.id, bench.me.id)
    assert (command.cwd, command.state, command.exit_code, command.duration_ms) == ("/tmp", "finished", 2, 250)
    assert (command.stdout_bytes, command.stderr_bytes, command.output_head) == (4, 4, "out\nbad\n")
    told = await bench.hears("shell.command", lambda payload: payload["command"]["exit_code"] == 2)
    assert (told["shell_id"], told["task_id"], told["command"]["id"]) == (shell.id, task.id, command.id)


async def test_of_much_output_head_and_tail_are_kept(bench: Any) -> None:
    await bench.run(await bench.open(), "say first\nflood 1048576\nsay last")
    (command,) = await bench.commands()
    assert command.output_head.startswith("first\n")
    assert command.output_tail.endswith("last\n")
    assert len(command.output_head) == len(command.output_tail) == 4096


@dataclass
class Moment:
    """As a snapshot service answers: what differs from one moment, and the name of this one."""

    paths: tuple[str, ...]
    moment: str


class Looks:
    """Knows two moments of every workspace, and no third."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    async def changed_since(self, task_id: str, moment: str | None) -> Moment | None:
        self.asked.append((task_id, moment))
        if len(self.asked) > 2:
            return None
        return Moment(() if moment is None else ("a.txt", "src/b.py"), "now")


async def test_the_files_that_a_command_changed_are_in_the_audit(bench: Any) -> None:
    bench.services.shells.changes = Changes(looks := Looks())
    shell = await bench.open()
    assert (await bench.run(shell, "say on")).changed_files == ["a.txt", "src/b.py"]
    assert (await bench.run(shell, "say on")).changed_files is None
    assert looks.asked[:2] == [(shell.workspace_id, None), (shell.workspace_id, "now")]
    assert [command.changed_files for command in await bench.commands()] == [["a.txt", "src/b.py"], None]


async def test_a_look_at_a_big_workspace_holds_no_command_up(bench: Any, monkeypatch: Any) -> None:
    looks = 0

    class Slow:
        async def changed_since(self, task_id: str, moment: str | None) -> None:
            nonlocal looks
            looks += 1
            await anyio.sleep_forever()

    monkeypatch.setattr("kandev_host.services.shells.changes.LOOK_S", 0.01)
    bench.services.shells.changes = Changes(Slow())
    shell = await bench.open()
    for _ in range(3):
        assert (await bench.run(shell, "say on")).changed_files is None
    assert looks == 1


async def test_a_time_out_is_in_the_audit(bench: Any) -> None:
    await bench.run(await bench.open(), "wait", timeout_s=0.01)
    (command,) = await bench.commands()
    assert (command.state, command.timed_out, command.reason) == ("killed", True, "it took too long")


async def test_commands_are_searched_for(bench: Any) -> None:
    await bench.run(await bench.open(), "say pomegranate")
    (hit,) = (await bench.services.search.query(bench.me, SearchQuery(text="pomegranate"))).hits
    assert (hit.kind, hit.task_id) == ("command", None)


async def test_commands_are_listed_by_shell_and_task(bench: Any) -> None:
    task = await bench.task()
    one, two = await bench.open(task_id=task.id), await bench.open()
    await bench.run(one, "say 1")
    await bench.run(two, "say 2")

    async def listed(**what: Any) -> list[str]:
        reply = await bench.services.shells.commands(bench.me, wire.ShellCommands(**what))
        return [command.command for command in reply.commands]

    assert await listed() == ["say 2", "say 1"]
    assert await listed(shell_id=one.id) == await listed(task_id=task.id) == ["say 1"]


async def test_events_of_a_shell_are_replayed_under_its_topic(bench: Any) -> None:
    task = await bench.task()
    shell, other = await bench.open(task_id=task.id), await bench.open()
    await bench.run(shell, "say 1")
    await bench.run(other, "say 2")
    await bench.do("close", shell)
    kept = await bench.services.store.events(0, topics=[f"shell:{shell.id}"])
    assert [item.action for item in kept] == ["shell.opened", "shell.command", "shell.command", "shell.exited"]
    assert {item.shell_id for item in kept} == {shell.id}
    assert [item.seq for item in kept] == [
        item.seq for item in await bench.services.store.events(0, topics=[f"task:{task.id}"])
    ]


async def test_a_store_that_refuses_the_end_keeps_the_result_from_nobody(bench: Any, monkeypatch: Any) -> None:
    shell = await bench.open()
    record = bench.services.journal.record

    async def refuses(*changes: Any, **more: Any) -> Any:
        if any(isinstance(change, Put) and getattr(change.row, "state", "") == "finished" for change in changes):
            raise StorageFull("The disk is full")
        return await record(*changes, **more)

    monkeypatch.setattr(bench.services.journal, "record", refuses)
    assert (await bench.run(shell, "say on")).stdout == "on\n"
    monkeypatch.undo()
    await bench.do("close", shell)
    (command,) = await bench.commands()
    assert command.state == "lost"


async def test_p9_shells_of_a_dead_host_are_closed_and_their_commands_lost(open_bench: Any) -> None:
    async with open_bench() as bench:
        row = ShellRow(workspace_id="w", runtime="scripted", opened_by="me")
        running = Command(shell_id=row.id, command="make", state="running", created_by="me")
        done = Command(shell_id=row.id, command="ls", state="finished", exit_code=0, created_by="me")
        await bench.services.journal.record(Put(row), Put(running), Put(done))
        report = await bench.services.recovery.reconcile()
        assert report["shells_closed"] == 1
        (closed,) = (await bench.services.shells.list(bench.me, wire.ShellList())).shells
        assert (closed.state, closed.reason) == ("closed", "host_died")
        assert {command.command: command.state for command in await bench.commands()} == {
            "make": "lost",
            "ls": "finished",
        }
        assert (await bench.hears("shell.exited"))["shell_id"] == row.id
        assert (await bench.services.recovery.reconcile())["shells_closed"] == 0


async def test_p9_commands_of_agents_of_a_dead_host_are_lost(open_bench: Any) -> None:
    async with open_bench() as bench:
        task = await bench.task()
        running = Command(task_id=task.id, agent_id="a", command="make", state="running", created_by="a")
        said = Command(task_id=task.id, agent_id="a", command="ls")
        await bench.services.journal.record(Put(running), Put(said))
        await bench.services.recovery.reconcile()
        found = {command.command: (command.state, command.reason) for command in await bench.commands()}
        assert found == {"make": ("lost", "host_died"), "ls": (None, None)}
        assert (await bench.hears("shell.command"))["agent_id"] == "a"


async def test_rows_of_old_scratch_shells_go_with_their_commands(bench: Any) -> None:
    ago = now() - timedelta(days=400)
    task = await bench.task()
    fields: dict[str, Any] = {"runtime": "scripted", "opened_by": "me", "created_at": ago, "state": "closed"}
    old = ShellRow(workspace_id="a", closed_at=ago, **fields)
    of_task = ShellRow(workspace_id=task.id, task_id=task.id, closed_at=ago, **fields)
    just_closed = ShellRow(workspace_id="b", closed_at=now(), **fields)
    command = Command(shell_id=old.id, command="ls", state="finished")
    await bench.services.journal.record(*map(Put, (old, of_task, just_closed, command)))
    await bench.services.recovery.reconcile()
    left = (await bench.services.shells.list(bench.me, wire.ShellList())).shells
    assert {row.id for row in left} == {of_task.id, just_closed.id}
    assert await bench.commands() == []
