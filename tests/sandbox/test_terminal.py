"""A command on a terminal of its own: what it shows, what is typed, its size, and its signals."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from kandev_sandbox import Jail, PolicyError, Streams, open_jail
from kandev_sandbox.shell import Terminal, open_terminal
from kandev_sandbox.shell.terminal import Onto, hang_up

pytestmark = pytest.mark.anyio
DEADLINE_S = 90


class Screen:
    """A terminal and all that it has shown."""

    def __init__(self, jail: Jail, terminal: Terminal) -> None:
        self.jail = jail
        self.terminal = terminal
        self.shown = b""

    async def until(self, pattern: str) -> re.Match[bytes]:
        while not (match := re.search(pattern.encode(), self.shown)):
            chunk = await self.terminal.receive()
            assert chunk, self.shown
            self.shown += chunk
        self.shown = self.shown[match.end() :]
        return match

    async def type(self, text: str) -> None:
        await self.terminal.send(text.encode())

    async def rest(self) -> bytes:
        while chunk := await self.terminal.receive():
            self.shown += chunk
        return self.shown


@asynccontextmanager
async def on_screen(
    sandbox: Any, *command: str, columns: int = 80, rows: int = 24, **names: Any
) -> AsyncIterator[Screen]:
    def opener(onto: Onto, streams: Streams) -> AbstractAsyncContextManager[Jail]:
        policy, argv = onto(replace(sandbox.policy, **names), command)
        return open_jail(policy, argv, bwrap=sandbox.bwrap, streams=streams)

    with anyio.fail_after(DEADLINE_S):
        async with open_terminal(opener, columns, rows) as (jail, terminal):
            yield Screen(jail, terminal)


async def test_it_is_a_terminal_of_the_size_asked_for(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/sh", "-c", "test -t 0 && test -t 1 && test -t 2 && stty size </dev/tty",
                         columns=101, rows=33) as screen:  # fmt: skip
        assert await screen.rest() == b"33 101\r\n"
        assert await screen.jail.wait() == 0


async def test_what_is_typed_is_read_and_echoed(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/sh", "-c", "read x; echo got $x; exit 7") as screen:
        await screen.type("abc\n")
        assert await screen.rest() == b"abc\r\ngot abc\r\n"
        assert await screen.jail.wait() == 7


async def test_a_new_size_reaches_the_foreground_job(sandbox: Any) -> None:
    script = "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.01; done"
    async with on_screen(sandbox, "/bin/bash", "-c", script) as screen:
        await screen.until("up")
        screen.terminal.resize(132, 50)
        await screen.until("50 132")


async def test_control_c_interrupts_the_foreground_job_and_not_the_shell(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/bash", "--norc", "-i") as screen:
        await screen.type("PS1='ready''> '\n")
        await screen.until("ready> $")
        await screen.type("sh -c 'echo be\"\"gun; exec sleep 600'; echo after\n")
        await screen.until("begun\r\n")
        await screen.type("\x03")
        await screen.until("ready> $")
        await screen.type("echo status $?\n")
        await screen.until("status 130")


async def test_job_control_works(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/bash", "--norc", "-i") as screen:
        await screen.until(r"\$ $")
        assert b"no job control" not in screen.shown
        await screen.type("sh -c 'echo be\"\"gun; exec sleep 600'\n")
        await screen.until("begun\r\n")
        await screen.type("\x1a")
        await screen.until("Stopped")
        await screen.type("kill %1; fg; echo en''ded\n")
        await screen.until("ended")


async def test_the_end_of_input_ends_a_shell(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/bash", "--norc", "-i") as screen:
        await screen.until(r"\$ $")
        await screen.terminal.end_of_input()
        await screen.rest()
        assert await screen.jail.wait() == 0


async def test_hanging_up_ends_an_interactive_shell(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/bash", "--norc", "-i") as screen:
        await screen.until(r"\$ $")
        await hang_up(lambda: screen.jail.signal(signal.SIGHUP), screen.jail.wait)
        await screen.rest()
        assert await screen.jail.wait() == 129


async def test_the_policy_may_name_the_kind_of_terminal(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/sh", "-c", "echo $TERM") as screen:
        assert await screen.rest() == b"xterm-256color\r\n"
    async with on_screen(sandbox, "/bin/sh", "-c", "echo $TERM", env={"TERM": "vt100"}) as screen:
        assert await screen.rest() == b"vt100\r\n"


async def test_it_can_be_opened_by_its_name(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/sh", "-c", "echo named >/dev/tty; echo again >/dev/stdout") as screen:
        assert await screen.rest() == b"named\r\nagain\r\n"


async def test_a_flood_waits_for_the_reader(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/sh", "-c", "stty -opost; seq 200000") as screen:
        assert await screen.rest() == "".join(f"{number}\n" for number in range(1, 200_001)).encode()


async def test_a_command_that_is_not_there_is_said_so_on_the_screen(sandbox: Any) -> None:
    async with on_screen(sandbox, "/nowhere/at/all") as screen:
        assert b"/nowhere/at/all" in await screen.rest()
        assert await screen.jail.wait() == 127


@pytest.mark.parametrize("size", [(0, 24), (80, 0), (100_000, 24)])
async def test_what_is_no_size_is_refused(sandbox: Any, size: tuple[int, int]) -> None:
    with pytest.raises(PolicyError):
        async with on_screen(sandbox, "/bin/true", columns=size[0], rows=size[1]):
            pass


async def test_typing_after_the_end_says_that_nobody_is_there(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/true") as screen:
        await screen.rest()
        await screen.jail.wait()
        screen.terminal.close()
        with pytest.raises(BrokenPipeError):
            await screen.type("x")
        assert await screen.terminal.receive() == b""


async def test_leaving_ends_what_runs_on_it(sandbox: Any) -> None:
    async with on_screen(sandbox, "/bin/sh", "-c", "trap '' HUP TERM; echo up; sleep 600") as screen:
        await screen.until("up")
    assert not screen.jail.init.alive()
