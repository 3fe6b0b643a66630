"""`kandev-host task list`, `show`, `events` and `diff`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import board_names, find, find_given, short
from kandev_host.cli.options import example, states
from kandev_host.cli.output import console, table
from kandev_host.cli.shown import changes_told, moment, states_told, task_in_full, task_table
from kandev_host.printable import printable


@click.command(
    "list",
    epilog=example(
        "kandev-host task list --board Work --state todo\n"
        "kandev-host task list --text 'log-in' --json | jq -r '.tasks[].id'"
    ),
)
@click.option("--board", help="Only of this board.")
@click.option("--column", help="Only in this column.")
@click.option("--state", type=states, help="Only in this state.")
@click.option("--agent", "agent_type", help="Only for this agent type.")
@click.option("--text", "query", help="Only with these words in title or description.")
@click.option("--priority-min", type=click.IntRange(0, 10), metavar="N", help="Only of this priority or a higher one.")
@paged
@asking
async def list_tasks(remote: Remote, board: str | None, column: str | None, **options: Any) -> None:
    """Tasks that meet every filter."""
    board_id = await find_given(remote, "board", board)
    column_id = await find_given(remote, "column", column, board_id=board_id)
    paging = {name: options.pop(name) for name in ("limit", "cursor", "every")}
    boards = None if remote.as_json or board_id or column_id else await _board_names(remote)

    def plain(tasks: list[dict[str, Any]]) -> None:
        task_table(tasks, boards)

    await remote.pages("task.list", "tasks", plain, paging, board_id=board_id, column_id=column_id, **options)


async def _board_names(remote: Remote) -> dict[str, str]:
    """None are known to who may not read boards: then the endings of their ids are shown."""
    from kandev_host.client import ClientError

    try:
        return await board_names(remote)
    except ClientError as error:
        if error.code != "FORBIDDEN":
            raise
        return {}


@click.command(epilog=example("kandev-host task show 0c9e6a41\nkandev-host task show 0c9e6a41 --json | jq .task.state"))
@click.argument("task")
@asking
async def show(remote: Remote, task: str) -> None:
    """One task in full."""
    reply = await remote.call("task.get", task_id=await find(remote, "task", task))
    remote.show(reply, lambda: task_in_full(reply["task"]))


@click.command(epilog=example("kandev-host task events 0c9e6a41\nkandev-host task events 0c9e6a41 --all --json"))
@click.argument("task")
@paged
@asking
async def events(remote: Remote, task: str, **paging: Any) -> None:
    """What was ever done to a task: when, by whom, and what changed."""

    def plain(rows: list[dict[str, Any]]) -> None:
        table(
            ["WHEN", "WHAT", "STATE", "BY", "CHANGED"],
            (
                [
                    moment(row["created_at"]),
                    row["event_type"],
                    states_told(row["old_state"], row["new_state"]),
                    short(row["created_by"]),
                    "; ".join(changes_told(row["metadata"])),
                ]
                for row in rows
            ),
        )

    await remote.pages("task.events", "events", plain, paging, task_id=await find(remote, "task", task))


@click.command(
    epilog=example("kandev-host task diff 0c9e6a41\nkandev-host task diff 0c9e6a41 --json | jq -r .diff | git apply")
)
@click.argument("task")
@asking
async def diff(remote: Remote, task: str) -> None:
    """What a task's agents changed. What a terminal might obey is escaped: --json has every byte."""
    show_diff(remote, await remote.call("workspace.diff", task_id=await find(remote, "task", task)))


def show_diff(remote: Remote, reply: Mapping[str, Any]) -> None:
    """What `workspace.diff` answered."""

    def plain() -> None:
        shown = printable(reply["diff"], lines=True).rstrip("\n")
        out = console()
        if shown and out.is_terminal:
            from rich.syntax import Syntax

            out.print(Syntax(shown, "diff", background_color="default", theme="ansi_dark"))
        elif shown:
            click.echo(shown)
        if reply["truncated"]:
            click.echo("The diff is longer; this is its beginning.", err=True)
        files, branch = len(reply["files"]), printable(reply["branch"])
        click.echo(f"{files} file(s), +{reply['additions']} -{reply['deletions']}, branch {branch}", err=True)

    remote.show(reply, plain)
