"""terminal/*: commands that the host runs for an agent, in a jail of the agent's own workspace. On real bubblewrap."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from kandev_host.errors import Unavailable
from kandev_host.interfaces import ProcessSpec, Put
from kandev_host.models import AgentInstance, Command
from kandev_host.protocol import jsonrpc
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.audit import CommandAudit
from kandev_host.sessions.terminals import TERMINALS, Output, Terminals

pytestmark = pytest.mark.anyio

DEADLINE_S = 60


def params(**fields: Any) -> Raw:
    return Raw(json.dumps({"sessionId": "s", **fields}).encode())


class Looking:
    """Tells of every command that it changed one file."""

    async def mark(self, workspace_id: str) -> str | None:
        return f"before {workspace_id}"

    async def since(self, workspace_id: str, mark: str | None) -> list[str] | None:
        assert mark == f"before {workspace_id}"
        return ["changed"]


@pytest.fixture
async def audit(world: Any) -> CommandAudit:
    agent = AgentInstance(task_id=world.task.id, agent_type="scripted", runtime="bwrap")
    await world.journal.record(Put(agent))
    return CommandAudit(world.journal, agent, lambda: "turn", Looking())


def of_w1(jail: Any, audit: CommandAudit, *, may_run: bool = True) -> Terminals:
    return Terminals(jail, ProcessSpec(workspace_id="w1", command=("agent",)), lambda: "s", lambda: may_run, audit)


@pytest.fixture
async def terminals(jail: Any, audit: CommandAudit) -> AsyncIterator[Terminals]:
    made = of_w1(jail, audit)
    async with made.open():
        yield made


async def ran(terminals: Terminals, **wanted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a command said, and how it ended."""
    of = await terminals.create(params(**wanted))
    with anyio.fail_after(DEADLINE_S):
        status = await terminals.wait_for_exit(params(**of))
    return await terminals.output(params(**of)), status


@given(st.lists(st.text(max_size=10), max_size=20), st.integers(0, 30))
def test_output_is_the_end_of_what_was_said_from_a_whole_character_on(texts: list[str], limit: int) -> None:
    said = "".join(texts)
    output = Output(limit)
    for text in texts:
        output.take(text.encode())
    assert said.endswith(output.text())
    assert limit - 4 < len(output.text().encode()) <= limit or not output.truncated
    assert output.truncated == (len(said.encode()) > limit)


async def test_a_command_runs_in_the_workspace(terminals: Terminals) -> None:
    output, status = await ran(terminals, command="sh", args=["-c", "pwd; echo err >&2; exit 3"])
    assert sorted(output["output"].split()) == ["/workspace", "err"]
    assert (output["exitStatus"], status) == (status, {"exitCode": 3, "signal": None})


async def test_a_command_without_arguments_is_a_line_for_the_shell(terminals: Terminals) -> None:
    output, _ = await ran(terminals, command="echo $A | tr a-z A-Z", env=[{"name": "A", "value": "x=y z"}], cwd="/tmp")
    assert output["output"] == "X=Y Z\n"


async def test_output_is_truncated_from_its_start(terminals: Terminals) -> None:
    output, _ = await ran(terminals, command="printf 'ääääxyz'", outputByteLimit=4)
    assert (output["output"], output["truncated"]) == ("xyz", True)


async def test_a_program_of_the_host_is_not_found_for_an_agent(terminals: Terminals, tmp_path: Path) -> None:
    """What an agent names is looked up inside: the host would bind the folder that it lies in."""
    (tmp_path / "tool").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tool").chmod(0o755)
    output, status = await ran(terminals, command=str(tmp_path / "tool"), args=["x"])
    assert status["exitCode"] == 127
    assert "ran" not in output["output"].split()


async def test_a_killed_terminal_can_still_be_read(terminals: Terminals, jail: Any) -> None:
    of = await terminals.create(params(command="echo up; exec sleep 600"))
    with anyio.fail_after(DEADLINE_S):
        while not (await terminals.output(params(**of)))["output"]:
            await anyio.sleep(0.01)
        await terminals.kill(params(**of))
    assert await terminals.output(params(**of)) == {
        "output": "up\n",
        "truncated": False,
        "exitStatus": {"exitCode": None, "signal": "SIGKILL"},
    }
    assert await jail.list_owned() == []


async def test_a_released_terminal_is_gone(terminals: Terminals, jail: Any) -> None:
    of = await terminals.create(params(command="sleep 600"))
    await terminals.release(params(**of))
    assert await jail.list_owned() == []
    with pytest.raises(RpcError) as caught:
        await terminals.output(params(**of))
    assert caught.value.code == jsonrpc.NOT_FOUND


async def test_there_are_so_many_terminals_and_no_more(terminals: Terminals) -> None:
    first = await terminals.create(params(command="true"))
    for _ in range(TERMINALS - 1):
        await terminals.create(params(command="true"))
    with pytest.raises(RpcError, match="release one"):
        await terminals.create(params(command="true"))
    await terminals.release(params(**first))
    await terminals.create(params(command="true"))


async def test_all_terminals_end_with_the_session(jail: Any, audit: CommandAudit) -> None:
    terminals = of_w1(jail, audit)
    async with terminals.open():
        for _ in range(3):
            await terminals.create(params(command="setsid sleep 600 & exec sleep 600"))
        assert len(await jail.list_owned()) == 3
    assert await jail.list_owned() == []


async def test_a_run_that_may_only_read_runs_nothing(jail: Any, audit: CommandAudit) -> None:
    terminals = of_w1(jail, audit, may_run=False)
    async with terminals.open():
        with pytest.raises(RpcError, match="may read only"):
            await terminals.create(params(command="true"))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"command": " "},
        {"command": "true", "cwd": "/etc"},
        {"command": "true", "cwd": "/workspace/../etc"},
        {"command": "a\0b"},
        {"command": "true", "args": ["x" * 200_000]},
        {"command": "true", "env": [{"name": "A=B", "value": ""}]},
        {"command": "true", "sessionId": "another"},
    ],
)
async def test_wrong_params_are_invalid(terminals: Terminals, wrong: Any) -> None:
    with pytest.raises(RpcError) as caught:
        await terminals.create(params(**wrong))
    assert caught.value.code == jsonrpc.INVALID_PARAMS


# --- the audit ----------------------------------------------------------------------------------------------------


async def test_a_command_is_in_the_audit_with_all_that_the_host_knows_of_it(terminals: Terminals, world: Any) -> None:
    script = "head -c 9000 /dev/zero | tr '\\0' a; echo err >&2; exit 3"
    await ran(terminals, command="sh", args=["-c", script], cwd="/tmp", env=[{"name": "KEY", "value": "secret"}])
    (row,) = await world.rows(Command)
    assert (row.command, row.cwd, row.state, row.exit_code) == (f"sh -c {shlex.quote(script)}", "/tmp", "finished", 3)
    assert (row.stdout_bytes, row.stderr_bytes, row.truncated) == (9000, 4, True)
    assert (row.task_id, row.turn_id, row.created_by) == (world.task.id, "turn", row.agent_id)
    assert row.duration_ms is not None
    assert len(row.output_head) == 4096
    assert row.output_head.replace("err\n", "").strip("a") == ""  # whichever of the two pipes was read first
    assert row.changed_files == ["changed"]


async def test_a_command_is_in_the_audit_before_it_runs(terminals: Terminals, world: Any) -> None:
    await terminals.create(params(command="sleep 600"))
    told = await world.until("shell.command")
    assert (told["command"]["command"], told["command"]["state"]) == ("sleep 600", "running")
    assert (told["task_id"], told["shell_id"], told["agent_id"]) == (world.task.id, None, told["command"]["agent_id"])


async def test_a_command_that_cannot_be_written_down_does_not_run(
    terminals: Terminals, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(world.journal, "record", refuse)
    output, status = await ran(terminals, command="echo ran")
    assert (output["output"], status["exitCode"]) == ("the disk is full", None)


async def test_what_the_agent_ends_is_told_so(terminals: Terminals, world: Any) -> None:
    await terminals.release(params(**await terminals.create(params(command="sleep 600"))))
    (row,) = await world.rows(Command)
    assert (row.state, row.exit_code, row.reason) == ("killed", 137, "the agent ended it")


async def test_what_ends_with_its_session_is_told_so(jail: Any, audit: CommandAudit, world: Any) -> None:
    terminals = of_w1(jail, audit)
    async with terminals.open():
        await terminals.create(params(command="sleep 600"))
    (row,) = await world.rows(Command)
    assert (row.state, row.exit_code, row.reason) == ("killed", None, "its session ended")
    assert row.changed_files is None
