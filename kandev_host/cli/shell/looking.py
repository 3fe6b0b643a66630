"""`kandev-host shell list`, `commands`, `jobs` and `log`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import find, find_given, short
from kandev_host.cli.options import example
from kandev_host.cli.output import emit, table
from kandev_host.cli.shown import moment, text
from kandev_host.printable import printable

PAGE_BYTES = 256 << 10


@click.command("list", epilog=example("kandev-host shell list --state open\nkandev-host shell list --task 0c9e6a41"))
@click.option("--task", help="Only of this task.")
@click.option("--state", type=click.Choice(["open", "closed"]), help="Only in this state.")
@paged
@asking
async def list_shells(remote: Remote, task: str | None, state: str | None, **paging: Any) -> None:
    """Shells that are open or were, newest first."""

    def plain(rows: Iterable[Mapping[str, Any]]) -> None:
        table(
            ["ID", "TASK", "STATE", "NETWORK", "OPENED", "WHERE", "REASON"],
            (
                [
                    short(row["id"]),
                    short(row["task_id"]),
                    row["state"],
                    row["network"],
                    moment(row["created_at"]),
                    "(terminal)" if row["pty"] else row["cwd"],
                    text(row["reason"]),
                ]
                for row in rows
            ),
        )

    task_id = await find_given(remote, "task", task)
    await remote.pages("shell.list", "shells", plain, paging, task_id=task_id, state=state)


@click.command(
    epilog=example(
        "kandev-host shell commands --task 0c9e6a41\n"
        "kandev-host shell commands --shell 7b1d20f3 --all --json | jq '.commands[].changed_files'"
    )
)
@click.option("--shell", help="Only of this shell.")
@click.option("--task", help="Only of this task.")
@paged
@asking
async def commands(remote: Remote, shell: str | None, task: str | None, **paging: Any) -> None:
    """The audit: the commands that ran, newest first; with --json all that is known of each."""

    def plain(rows: Iterable[Mapping[str, Any]]) -> None:
        table(
            ["WHEN", "TASK", "STATE", "EXIT", "MS", "BYTES", "COMMAND"],
            (
                [
                    moment(row["created_at"]),
                    short(row["task_id"]),
                    text(row["state"]),
                    text(row["exit_code"]),
                    text(row["duration_ms"]),
                    text(None if row["stdout_bytes"] is None else row["stdout_bytes"] + (row["stderr_bytes"] or 0)),
                    " ".join(row["command"].split())[:200],
                ]
                for row in rows
            ),
        )

    shell_id, task_id = await find_given(remote, "shell", shell), await find_given(remote, "task", task)
    await remote.pages("shell.commands", "commands", plain, paging, shell_id=shell_id, task_id=task_id)


@click.command(epilog=example("kandev-host shell jobs 7b1d20f3"))
@click.argument("shell")
@asking
async def jobs(remote: Remote, shell: str) -> None:
    """What runs in a shell: its command, and what earlier ones left in the background. To end one: shell signal."""
    reply = await remote.call("shell.jobs", shell_id=await find(remote, "shell", shell))

    def plain() -> None:
        table(
            ["PID", "STATE", "AGE S", "CPU S", "BYTES", "COMMAND"],
            (
                [
                    text(job["pid"]),
                    job["state"],
                    f"{job['age_s']:.1f}",
                    text(job["cpu_s"]),
                    text(job["rss_bytes"]),
                    " ".join(job["command"].split())[:200],
                ]
                for job in reply["jobs"]
            ),
        )
        if reply["waiting"]:
            click.echo(f"{reply['waiting']} more wait for their turn.", err=True)

    remote.show(reply, plain)


@click.command(epilog=example("kandev-host shell log 7b1d20f3\nkandev-host shell log 7b1d20f3 --offset 4096 --json"))
@click.argument("shell")
@click.option("--offset", type=click.IntRange(0), default=0, help="From this byte of its output on.")
@click.option("--limit", type=click.IntRange(1, 1 << 20), metavar="BYTES", help="At most so much [default: all].")
@asking
async def log(remote: Remote, shell: str, offset: int, limit: int | None) -> None:
    """The latest output of an open shell, as far as the host holds it. What a terminal would obey is shown instead."""
    shell_id, data = await find(remote, "shell", shell), b""
    while True:
        reply = await remote.call("shell.read", shell_id=shell_id, offset=offset, limit_bytes=limit or PAGE_BYTES)
        if remote.as_json:
            emit(reply)
        elif reply["dropped_bytes"]:
            click.echo(f"{reply['dropped_bytes']} bytes before it are not held any more.", err=True)
        for part in reply["output"]:
            data += base64.b64decode(part["data"]) if part["encoding"] == "base64" else part["data"].encode()
        offset = reply["next_offset"]
        if limit is not None or not reply["output"]:
            break
    if not remote.as_json:
        click.echo(printable(data.decode(errors="replace").replace("\r\n", "\n"), lines=True), nl=False)
