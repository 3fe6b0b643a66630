"""`kandev-host shell open`, `attach`, `run`, `signal`, `input`, `resize` and `close`."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find
from kandev_host.cli.options import example, load_settings, settings_options
from kandev_host.cli.output import done
from kandev_host.cli.shell.choices import Choices, where_options
from kandev_host.printable import printable

_SIZE = click.IntRange(1, 1000)
END = (1 << 63) - 1
_SIGNALS = ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "TSTP")


@click.command("open", epilog=example("kandev-host shell open --task 0c9e6a41\nkandev-host shell open --pty --json"))
@where_options
@click.option("--pty", is_flag=True, help="A terminal, to be attached to.")
@click.option("--cols", type=_SIZE, help="With --pty: its columns.")
@click.option("--rows", type=_SIZE, help="With --pty: its lines.")
@asking
async def open_(remote: Remote, pty: bool, cols: int | None, rows: int | None, **where: Any) -> None:
    """Open a shell that stays open: to run commands in (shell run), or with --pty a terminal (shell attach).

    It is closed by shell close, or when for an hour nothing was done in it.
    """
    shell = await Choices.of(where).open(remote, pty=pty or None, cols=cols, rows=rows)
    remote.show({"shell": shell}, lambda: done("Opened", shell["id"], f"workspace {shell['workspace_id']}"))


@click.command(epilog=example("kandev-host shell attach 7b1d20f3"))
@click.argument("shell")
@settings_options
def attach(shell: str, config: Path | None, data_dir: Path | None) -> int:
    """Be in a terminal that is open. Enter and then ~. leaves it, and it stays open."""
    import anyio

    from kandev_host.cli.shell.interactive import attach_here

    return anyio.run(attach_here, load_settings(config, data_dir), shell)


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=example(
        "kandev-host shell run 7b1d20f3 'cd src; export DEBUG=1'\n"
        "kandev-host shell run --timeout 600 7b1d20f3 make test"
    ),
)
@click.argument("shell")
@click.argument("words", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=3600.0,
    show_default=True,
    help="Kill it after so many seconds.",
)
@click.option(
    "--max-output", type=click.IntRange(1, 1 << 20), metavar="BYTES", help="With --json: keep so much of its output."
)
@asking
async def run(remote: Remote, shell: str, words: tuple[str, ...], timeout_s: float, max_output: int | None) -> int:
    """Run a command in an open shell: where the last one left it, with what it exported.

    One word is a script for /bin/sh; several are a command with its arguments. The exit status is the command's own.
    It waits for the commands that others run there, and shows what these write meanwhile.
    """
    from kandev_host.cli.shell.running import Running

    if words[0] == "--" and len(words) > 1:  # as exec has it; no command is called so
        words = words[1:]
    shell_id = await find(remote, "shell", shell)
    await remote.client.subscribe(f"shell:{shell_id}")
    script = words[0] if len(words) == 1 else shlex.join(words)
    return await Running(remote, shell_id, await _offset(remote, shell_id)).run(script, timeout_s, max_output)


async def _offset(remote: Remote, shell_id: str) -> int:
    """How much the shell has put out so far; of one that is not open, shell.run says why."""
    from kandev_host.client import ClientError

    try:
        now = await remote.call("shell.read", shell_id=shell_id, offset=END, limit_bytes=1)
    except ClientError:
        return 0
    return int(now["next_offset"])


@click.command(epilog=example("kandev-host shell signal 7b1d20f3 int\nkandev-host shell signal 7b1d20f3 kill --pid 12"))
@click.argument("shell")
@click.argument("name", metavar="SIGNAL", type=click.Choice(_SIGNALS, case_sensitive=False))
@click.option("--pid", type=click.IntRange(2), help="A job of shell jobs [default: the running command].")
@asking
async def signal(remote: Remote, shell: str, name: str, pid: int | None) -> int:
    """Signal what runs in a shell. Exit status 1 if nothing did."""
    shell_id = await find(remote, "shell", shell)
    reply = await remote.call("shell.signal", shell_id=shell_id, signal=name.upper(), pid=pid)
    what = "Signalled." if reply["signalled"] else "Nothing runs that could be signalled."
    remote.show(reply, lambda: click.echo(what, err=not reply["signalled"]))
    return 0 if reply["signalled"] else 1


@click.command("input", epilog=example("kandev-host shell input 7b1d20f3 'make test' --enter"))
@click.argument("shell")
@click.argument("text")
@click.option("--enter", is_flag=True, help="And the key Enter.")
@click.option("--base64", "is_base64", is_flag=True, help="TEXT is base64, for bytes that are no text.")
@asking
async def input_(remote: Remote, shell: str, text: str, enter: bool, is_base64: bool) -> None:
    """Type at a terminal, from elsewhere."""
    if is_base64 and enter:
        text = base64.b64encode(base64.b64decode(text) + b"\r").decode()
    elif enter:
        text += "\r"
    shell_id, encoding = await find(remote, "shell", shell), "base64" if is_base64 else None
    reply = await remote.call("shell.input", shell_id=shell_id, data=text, encoding=encoding)
    remote.show(reply, lambda: click.echo(f"Typed {reply['bytes']} bytes."))


@click.command(epilog=example("kandev-host shell resize 7b1d20f3 132 43"))
@click.argument("shell")
@click.argument("cols", type=_SIZE)
@click.argument("rows", type=_SIZE)
@asking
async def resize(remote: Remote, shell: str, cols: int, rows: int) -> None:
    """Give a terminal another size."""
    shell_id = await find(remote, "shell", shell)
    reply = await remote.call("shell.resize", shell_id=shell_id, cols=cols, rows=rows)
    remote.show(reply, lambda: done("Resized", shell_id, f"{cols} columns, {rows} lines"))


@click.command(epilog=example("kandev-host shell close 7b1d20f3"))
@click.argument("shell")
@asking
async def close(remote: Remote, shell: str) -> None:
    """Close a shell, and kill what still runs in it. A scratch workspace goes with its last shell."""
    reply = await remote.call("shell.close", shell_id=await find(remote, "shell", shell))
    row = reply["shell"]
    remote.show(reply, lambda: done("Closed", row["id"], printable(row["reason"] or "")))
