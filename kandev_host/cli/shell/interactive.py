"""A terminal of the host's, shown at the user's own."""

from __future__ import annotations

import base64
import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import click

from kandev_host.cli.access import open_client, running_client
from kandev_host.cli.asking import Remote
from kandev_host.cli.ids import find
from kandev_host.cli.shell.choices import Choices
from kandev_host.cli.shell.clipboard import Sieve
from kandev_host.cli.shell.output import Followed, Out

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from kandev_host.client import Client
    from kandev_host.settings.load import Loaded

STDIN, STDOUT = 0, 1
READ_BYTES = 16 << 10
CLOSE_S = 15.0
# What a program may have switched on and not off again: bracketed paste, mouse, hidden cursor, colours.
RESET = b"\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?25h\x1b[0m"
LEFT = b"\r\n[left]\r\n"


async def open_here(loaded: Loaded, choices: Choices) -> int:
    """Open a terminal and be in it until it ends; its exit status. Raises `UsageError` where there is no terminal."""
    _check_terminal()
    async with open_client(loaded, runs=True) as (client, _url):
        remote = Remote(client, as_json=False)
        columns, rows = _size()
        shell = await choices.open(remote, pty=True, cols=columns, rows=rows, attached=True)
        if shell["task_id"] is None and choices.workspace is None:
            click.echo("A scratch workspace: it is removed at the end. Leave with exit, or Enter ~ .", err=True)
        try:
            return await Interactive(client, shell["id"]).run()
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await client.call("shell.close", {"shell_id": shell["id"]})


async def attach_here(loaded: Loaded, text: str) -> int:
    """Be in a terminal that is open; leaving it leaves it open."""
    _check_terminal()
    async with running_client(loaded) as client:
        shell_id = await find(Remote(client, as_json=False), "shell", text)
        await client.subscribe(f"shell:{shell_id}")
        columns, rows = _size()
        await client.call("shell.resize", {"shell_id": shell_id, "cols": columns, "rows": rows})
        return await Interactive(client, shell_id).run()


def _check_terminal() -> None:
    if not (os.isatty(STDIN) and os.isatty(STDOUT)):
        raise click.UsageError("This needs a terminal; to run a command: kandev-host exec -- CMD")


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(STDOUT)
    except OSError:
        return 80, 24
    return min(max(size.columns, 1), 1000), min(max(size.lines, 1), 1000)


@contextmanager
def raw() -> Iterator[None]:
    """The user's terminal hands on every key as it is, and shows every byte as it is (cfmakeraw(3))."""
    before = termios.tcgetattr(STDIN)
    mode = termios.tcgetattr(STDIN)
    t = termios
    mode[0] &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
    mode[1] &= ~t.OPOST
    mode[2] = (mode[2] & ~(t.CSIZE | t.PARENB)) | t.CS8
    mode[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
    mode[6][t.VMIN], mode[6][t.VTIME] = 1, 0
    termios.tcsetattr(STDIN, termios.TCSANOW, mode)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSANOW, before)


class Escape:
    """Enter, ~ and a full stop leave, as in ssh; ~~ is one ~."""

    def __init__(self) -> None:
        self._fresh = True
        self._held = False

    def typed(self, data: bytes) -> tuple[bytes, bool]:
        """What of it goes to the shell, and whether to leave after that."""
        sent = bytearray()
        for byte in data:
            if self._held:
                self._held = False
                if byte == ord("."):
                    return bytes(sent), True
                if byte != ord("~"):
                    sent.append(ord("~"))
            elif self._fresh and byte == ord("~"):
                self._held = True
                continue
            sent.append(byte)
            self._fresh = byte in b"\r\n"
        return bytes(sent), False


class Interactive:
    """One person in one terminal, until that ends or the person leaves."""

    def __init__(self, client: Client, shell_id: str) -> None:
        self._client = client
        self._shell_id = shell_id
        self._status = 0
        self._told = b""

    async def run(self) -> int:
        """The exit status: the program's, 0 when the person left, 143 for SIGTERM."""
        with raw():
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._type, tasks)
                    tasks.start_soon(self._listen, tasks)
                    await self._show()
                    tasks.cancel_scope.cancel()
            finally:
                os.write(STDOUT, RESET + self._told)
        return self._status

    async def _show(self) -> None:
        out, sieve, followed = Out(STDOUT, plain=False), Sieve(), Followed(self._client, self._shell_id)
        async for _, data in followed.parts():
            await out.write(sieve.passed(data))
        ended = followed.exited or {}
        code = ended.get("exit_code")
        if code is None and ended.get("reason"):
            await out.write(f"\r\n[closed: {ended['reason']}]\r\n".encode())
        self._status = 1 if code is None else int(code)

    async def _type(self, tasks: TaskGroup) -> None:
        escape = Escape()
        while True:
            await anyio.wait_readable(STDIN)
            data = os.read(STDIN, READ_BYTES)
            sent, leave = escape.typed(data)
            if sent:
                await self._send(sent)
            if leave or not data:
                self._told = LEFT
                tasks.cancel_scope.cancel()
                return

    async def _send(self, data: bytes) -> None:
        from kandev_host.client import ClientError

        try:
            text, encoding = data.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(data).decode(), "base64"
        try:
            await self._client.call("shell.input", {"shell_id": self._shell_id, "data": text, "encoding": encoding})
        except ClientError as error:
            if error.code not in {"CONFLICT", "TIMEOUT"}:  # it has just ended, or what runs there does not read
                raise

    async def _listen(self, tasks: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                if number != signal.SIGWINCH:
                    self._status = 128 + number
                    tasks.cancel_scope.cancel()
                    return
                await self._resize()

    async def _resize(self) -> None:
        from kandev_host.client import ClientError

        columns, rows = _size()
        wanted: dict[str, Any] = {"shell_id": self._shell_id, "cols": columns, "rows": rows}
        try:
            await self._client.call("shell.resize", wanted)
        except ClientError as error:
            if error.code != "CONFLICT":
                raise
