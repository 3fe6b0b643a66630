"""`kandev-host column`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, confirm, given, paged, version_option, yes_option
from kandev_host.cli.ids import find, find_given, only_board
from kandev_host.cli.options import example, states
from kandev_host.cli.output import counted, done
from kandev_host.cli.shown import column_table

COUNT_PAGE = 500
_board = click.option("--board", help="The board [default: the only one].")
_of_board = click.option("--board", help="The board, if COLUMN is a name that several boards have.")
_wip = click.option("--wip-limit", type=click.IntRange(1), metavar="N", help="At most so many tasks in it.")
_state = click.option("--state", type=states, help="The state of tasks that this column stands for.")


@click.group(epilog=example("kandev-host column list\nkandev-host column create Review --board Work --position 2"))
def command() -> None:
    """Columns of boards: list, make, change, move and delete them.

    COLUMN and BOARD are names, ids, or the endings of ids.
    """


@command.command("list", epilog=example("kandev-host column list --board Work"))
@_board
@paged
@asking
async def list_columns(remote: Remote, board: str | None, **paging: Any) -> None:
    """The columns of a board, by position."""
    board_id = await only_board(remote, board)
    await remote.pages("column.list", "columns", column_table, paging, board_id=board_id)


@command.command(epilog=example("kandev-host column create Review --position 2 --wip-limit 3"))
@click.argument("name")
@_board
@click.option("--position", type=click.IntRange(0), metavar="N", help="Where, from 0 [default: at the end].")
@_wip
@_state
@asking
async def create(remote: Remote, name: str, board: str | None, **options: Any) -> None:
    """A new column."""
    reply = await remote.call("column.create", board_id=await only_board(remote, board), name=name, **options)
    remote.show(reply, lambda: done("Created column", reply["column"]["id"], reply["column"]["name"]))


@command.command(
    epilog=example("kandev-host column update Review --wip-limit 5\nkandev-host column update Review --clear state")
)
@click.argument("column")
@_of_board
@click.option("--name")
@_wip
@_state
@click.option("--clear", type=click.Choice(["wip-limit", "state"]), multiple=True, help="Empty this field.")
@version_option
@asking
async def update(
    remote: Remote,
    column: str,
    board: str | None,
    clear: tuple[str, ...],
    expected_version: int | None,
    **options: Any,
) -> None:
    """Change a column's name, limit or state."""
    changes = {**given(**options), **{name.replace("-", "_"): None for name in clear}}
    column_id = await _column(remote, column, board)
    reply = await remote.call("column.update", {"column_id": column_id, **changes}, expected_version=expected_version)
    remote.show(reply, lambda: done("Changed column", reply["column"]["id"], reply["column"]["name"]))


@command.command(epilog=example("kandev-host column move Review 0"))
@click.argument("column")
@click.argument("position", type=click.IntRange(0))
@_of_board
@version_option
@asking
async def move(remote: Remote, column: str, position: int, board: str | None, expected_version: int | None) -> None:
    """Put a column at another position; 0 is the first."""
    column_id = await _column(remote, column, board)
    reply = await remote.call("column.move", column_id=column_id, position=position, expected_version=expected_version)
    remote.show(reply, lambda: column_table(reply["columns"]))


@command.command(epilog=example("kandev-host column delete Review\nkandev-host column delete Review --force --yes"))
@click.argument("column")
@_of_board
@click.option(
    "--force", is_flag=True, help="Also with tasks in it: each moves to a column that fits its state, or to none."
)
@yes_option
@version_option
@asking
async def delete(
    remote: Remote, column: str, board: str | None, force: bool, yes: bool, expected_version: int | None
) -> None:
    """Delete a column, never its tasks.

    At a terminal it says how many tasks are in it, and asks. With tasks in it the host refuses, unless --force.
    """
    column_id = await _column(remote, column, board)
    if not yes:
        page = await remote.call("task.list", column_id=column_id, limit=COUNT_PAGE)
        holds = counted(len(page["tasks"]), "task", more=page["next_cursor"] is not None)
        confirm(f"Delete column {column}, which holds {holds}?", yes=yes)
    asked = {"column_id": column_id, **({"force": True} if force else {})}
    reply = await remote.call("column.delete", asked, expected_version=expected_version)
    remote.show(reply, lambda: done("Deleted column", column_id, _moved(reply["removed"])))


def _moved(removed: Mapping[str, Any]) -> str:
    """Where its tasks went."""
    return ", ".join(
        f"{counted(part['tasks'], 'task')} moved to {'no column' if part['name'] is None else part['name']}"
        for part in removed["moved_to"]
    )


async def _column(remote: Remote, column: str, board: str | None) -> str:
    return await find(remote, "column", column, board_id=await find_given(remote, "board", board))
