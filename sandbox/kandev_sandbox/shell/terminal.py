"""A jail whose command runs on a pseudo terminal of its own, made by the host and its controlling terminal inside."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import anyio
import anyio.lowlevel

from kandev_sandbox.errors import PolicyError, SpawnFailed
from kandev_sandbox.jail import Jail
from kandev_sandbox.launch import Streams
from kandev_sandbox.policy import Policy

TERM = "xterm-256color"
_MAX_SIZE = 10_000
_WORDS_BYTES = 4096
_IUTF8 = 0o40000
_HANG_UPS = 4
_HANG_UP_S = 0.25

# What a terminal makes of the policy and the command of its jail.
Onto = Callable[[Policy, Sequence[str]], tuple[Policy, Sequence[str]]]
TerminalOpener = Callable[[Onto, Streams], AbstractAsyncContextManager[Jail]]


class Terminal:
    """Made by `open_terminal`. One task may read and one may write at a time."""

    def __init__(self, master: int) -> None:
        os.set_blocking(master, False)
        self._master = master

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """What it shows next, waiting for some; b"" once nobody inside has it open. Not reading slows the program."""
        await anyio.lowlevel.checkpoint()
        while self._master >= 0:
            try:
                return os.read(self._master, max_bytes)
            except BlockingIOError:
                try:
                    await anyio.wait_readable(self._master)
                except anyio.ClosedResourceError:
                    break
            except OSError as error:
                if error.errno != errno.EIO:  # tty(4): the other side is closed
                    raise
                break
        return b""

    async def send(self, data: bytes) -> None:
        """Type it, waiting while nobody reads. Raises `BrokenPipeError` when the terminal is gone."""
        await anyio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            if self._master < 0:
                raise BrokenPipeError("the terminal is closed")
            try:
                rest = rest[os.write(self._master, rest) :]
            except BlockingIOError:
                try:
                    await anyio.wait_writable(self._master)
                except anyio.ClosedResourceError as error:
                    raise BrokenPipeError("the terminal is closed") from error
            except OSError as error:
                raise BrokenPipeError("nobody has the terminal open") from error

    async def end_of_input(self) -> None:
        """Type the end-of-file character, as the terminal is set now."""
        if self._master >= 0:
            await self.send(termios.tcgetattr(self._master)[6][termios.VEOF])

    def resize(self, columns: int, rows: int) -> None:
        """Its new size; the foreground job hears of it (SIGWINCH). Raises `PolicyError` for what is no size."""
        if self._master >= 0:
            _set_size(self._master, columns, rows)

    def close(self) -> None:
        """The foreground job gets SIGHUP."""
        master, self._master = self._master, -1
        if master >= 0:
            anyio.notify_closing(master)
            os.close(master)


@asynccontextmanager
async def open_terminal(opener: TerminalOpener, columns: int, rows: int) -> AsyncIterator[tuple[Jail, Terminal]]:
    """`opener` opens a jail with the policy and the command that the given function makes of its own, and the streams.

    The command is started by setsid(1): it leads a session inside, whose controlling terminal this is, so that Ctrl-C,
    Ctrl-Z and job control work. What it puts into the terminal's input reaches itself alone: no terminal of the
    caller's is in the jail. Raises `PolicyError`, and what `opener` raises.
    """
    master, slave = pty.openpty()
    terminal = Terminal(master)

    def onto(policy: Policy, command: Sequence[str]) -> tuple[Policy, Sequence[str]]:
        if policy.uid is not None:
            os.fchown(slave, policy.uid, -1)  # so that it can be opened by its name as well
        return replace(policy, env={"TERM": TERM, **policy.env}), ["setsid", "--ctty", *command]

    try:
        _set_size(master, columns, rows)
        _set_utf8(slave)
        try:
            async with opener(onto, Streams(slave, slave, slave)) as jail:
                os.close(slave)
                slave = -1
                yield jail, terminal
        except SpawnFailed as error:
            raise SpawnFailed(f"{error.reason} {_words(master)}".rstrip(), error.fix) from error
    finally:
        terminal.close()
        if slave >= 0:
            os.close(slave)


async def hang_up(signal: Callable[[], Awaitable[None]], wait: Callable[[], Awaitable[object]]) -> None:
    """Have `signal` send SIGHUP, as at the end of a line (interactive shells ignore SIGTERM). Waits a second at most.

    Sent until `wait` sees the end: bash forgets one that comes just before it waits for input.
    """
    for _ in range(_HANG_UPS):
        await signal()
        with anyio.move_on_after(_HANG_UP_S):
            await wait()
            return


def _set_size(descriptor: int, columns: int, rows: int) -> None:
    if not 0 < columns <= _MAX_SIZE or not 0 < rows <= _MAX_SIZE:
        raise PolicyError(f"A terminal cannot have {columns} columns and {rows} rows.", f"1 to {_MAX_SIZE} of each")
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _set_utf8(descriptor: int) -> None:
    """So that erasing takes back a character, not a byte (termios(3): IUTF8, which Python does not name)."""
    settings = termios.tcgetattr(descriptor)
    settings[0] |= _IUTF8
    termios.tcsetattr(descriptor, termios.TCSANOW, settings)


def _words(master: int) -> str:
    """What bwrap wrote on the terminal before it ended."""
    try:
        return os.read(master, _WORDS_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
