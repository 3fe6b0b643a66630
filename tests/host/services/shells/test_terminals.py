"""Terminals: typed at, shown, resized, signalled, and ended."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.errors import Conflict, TimedOut, ValidationFailed
from kandev_host.models import Receipt

pytestmark = pytest.mark.anyio


async def terminal(bench: Any, **how: Any) -> tuple[Any, Any]:
    row = await bench.open(pty=True, **how)
    return row, bench.runtime.terminals[-1]


async def shown(bench: Any, text: str) -> None:
    await bench.hears("shell.output", lambda part: text in part["data"])


async def test_it_has_the_size_that_was_asked_for(bench: Any) -> None:
    _, inside = await terminal(bench, cols=132, rows=43)
    assert inside.size == (132, 43)
    assert inside.spec.env["TERM"] == "xterm-256color"


async def test_only_a_terminal_has_a_size(bench: Any) -> None:
    with pytest.raises(ValidationFailed):
        await bench.open(cols=80)


async def test_what_is_typed_arrives_and_what_it_shows_is_told(bench: Any) -> None:
    row, _ = await terminal(bench)
    assert (await bench.do("input", row, data="ls ä\n")).bytes == 6
    await shown(bench, "ls ä")
    assert {part["stream"] for part in bench.told("shell.output")} == {"terminal"}


async def test_bytes_are_typed_in_base64(bench: Any) -> None:
    row, inside = await terminal(bench)
    assert (await bench.do("input", row, data="A/8=", encoding="base64")).bytes == 2
    with pytest.raises(ValidationFailed, match="base64"):
        await bench.do("input", row, data="?", encoding="base64")
    assert not inside.ended.is_set()


async def test_what_is_typed_is_kept_nowhere(bench: Any) -> None:
    row, _ = await terminal(bench)
    await bench.do("input", row, data="hunter2")
    assert [command.command for command in await bench.commands()] == ["(terminal)"]
    assert (await bench.services.store.find(Receipt)).rows == []


async def test_it_is_resized(bench: Any) -> None:
    row, inside = await terminal(bench)
    await bench.do("resize", row, cols=100, rows=30)
    assert inside.size == (100, 30)


async def test_its_exit_code_is_told(bench: Any) -> None:
    row, _ = await terminal(bench)
    await bench.do("input", row, data="\x04")
    told = (await bench.hears("shell.exited"))["shell"]
    assert (told["id"], told["exit_code"], told["reason"]) == (row.id, 3, "it exited")


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("HUP", 143), ("KILL", 137)])
async def test_a_signal_ends_it(bench: Any, name: Any, code: int) -> None:
    row, _ = await terminal(bench)
    assert (await bench.do("signal", row, signal=name)).signalled
    assert (await bench.hears("shell.exited"))["shell"]["exit_code"] == code


async def test_a_signal_for_its_foreground_is_typed(bench: Any) -> None:
    row, _ = await terminal(bench)
    await bench.do("signal", row, signal="INT")
    await shown(bench, "\x03")


async def test_other_signals_and_pids_are_not_a_terminal_s(bench: Any) -> None:
    row, _ = await terminal(bench)
    with pytest.raises(Conflict):
        await bench.do("signal", row, signal="USR1")
    with pytest.raises(Conflict):
        await bench.do("signal", row, signal="KILL", pid=7)


async def test_input_that_nobody_reads_is_not_waited_for_for_ever(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kandev_host.services.shells.live.INPUT_S", 0.01)
    row, inside = await terminal(bench)
    inside.reads = False
    with pytest.raises(TimedOut, match="no input"):
        await bench.do("input", row, data="x")
    inside.reads = True
    await bench.do("input", row, data="\x04")
    await bench.hears("shell.exited")


async def test_each_kind_of_shell_does_what_it_can(bench: Any) -> None:
    row, _ = await terminal(bench)
    for verb, fields in (("run", {"command": "ls"}), ("jobs", {})):
        with pytest.raises(Conflict, match="is a terminal"):
            await bench.do(verb, row, **fields)
    plain = await bench.open()
    for verb, fields in (("input", {"data": "x"}), ("resize", {"cols": 1, "rows": 1})):
        with pytest.raises(Conflict, match="no terminal"):
            await bench.do(verb, plain, **fields)


async def test_a_flood_waits_for_whoever_follows(bench: Any) -> None:
    bench.listener.reads = anyio.Event()
    row, inside = await terminal(bench)
    inside.show(b"x" * (1 << 20))
    await bench.listener.asked.wait()
    assert (await bench.do("input", row, data="y")).bytes == 1
    assert len(inside.shown) >= (1 << 20) - (64 << 10)
    bench.listener.reads.set()
    await shown(bench, "y")


async def test_a_terminal_is_one_command_of_the_audit(bench: Any) -> None:
    row, _ = await terminal(bench)
    (command,) = await bench.commands()
    assert (command.command, command.state, command.shell_id) == ("(terminal)", "running", row.id)
    await bench.do("input", row, data="hello")
    await shown(bench, "hello")
    await bench.do("input", row, data="\x04")
    await bench.hears("shell.exited")
    (command,) = await bench.commands()
    assert (command.state, command.exit_code, command.output_head) == ("finished", 3, "$ hello")
    assert command.stdout_bytes == 7


async def test_closing_a_terminal_kills_what_runs_in_it(bench: Any) -> None:
    row, _ = await terminal(bench)
    await bench.do("close", row)
    assert bench.runtime.left == [row.workspace_id]
    (command,) = await bench.commands()
    assert (command.state, command.reason) == ("killed", "it was closed")
