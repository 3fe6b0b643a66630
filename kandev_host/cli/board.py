"""`kandev-host board`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, confirm, given, paged, version_option, yes_option
from kandev_host.cli.ids import find, find_given, short
from kandev_host.cli.options import example
from kandev_host.cli.output import counted, done, fields, removed, table
from kandev_host.cli.shown import column_table
from kandev_host.cli.user import needing_users

COUNT_PAGE = 500


@click.group(epilog=example("kandev-host board list\nkandev-host board create Work\nkandev-host board show Work"))
def command() -> None:
    """Boards: list, make, change and delete them. BOARD is a name, an id, or the ending of an id."""


@command.command("list", epilog=example("kandev-host board list\nkandev-host board list --json | jq -r .boards[].id"))
@paged
@asking
async def list_boards(remote: Remote, **paging: Any) -> None:
    """All boards."""

    def plain(boards: list[dict[str, Any]]) -> None:
        rows = ([short(board["id"]), board["name"], board["description"] or ""] for board in boards)
        table(["ID", "NAME", "DESCRIPTION"], rows)

    await remote.pages("board.list", "boards", plain, paging)


@command.command(epilog=example("kandev-host board create Work --description 'What is to be done'"))
@click.argument("name")
@click.option("--description")
@click.option("--owner", metavar="USER", help="Whose it is, by name or id; for admins [default: yours].")
@asking
async def create(remote: Remote, name: str, description: str | None, owner: str | None) -> None:
    """A new board, with its columns."""
    with needing_users():
        owner_id = await find_given(remote, "user", owner)
    reply = await remote.call("board.create", {"name": name}, description=description, owner_id=owner_id)
    remote.show(reply, lambda: done("Created board", reply["board"]["id"], reply["board"]["name"]))


@command.command(epilog=example("kandev-host board show Work"))
@click.argument("board")
@asking
async def show(remote: Remote, board: str) -> None:
    """One board and its columns."""
    reply = await remote.call("board.get", board_id=await find(remote, "board", board))

    def plain() -> None:
        row = reply["board"]
        fields((name, row[name]) for name in ("id", "name", "description", "owner_id", "version", "created_at"))
        column_table(reply["columns"])

    remote.show(reply, plain)


@command.command(
    epilog=example(
        "kandev-host board update Work --name 'This week'\nkandev-host board update Work --clear description\n"
        "kandev-host board update Work --owner ada"
    )
)
@click.argument("board")
@click.option("--name")
@click.option("--description")
@click.option("--owner", metavar="USER", help="Hand it over to this user, by name or id; for admins.")
@click.option("--clear", type=click.Choice(["description"]), multiple=True, help="Empty this field.")
@version_option
@asking
async def update(
    remote: Remote,
    board: str,
    name: str | None,
    description: str | None,
    owner: str | None,
    clear: tuple[str, ...],
    expected_version: int | None,
) -> None:
    """Change a board's name, description or owner."""
    with needing_users():
        owner_id = await find_given(remote, "user", owner)
    changes = {**given(name=name, description=description, owner_id=owner_id), **dict.fromkeys(clear)}
    board_id = await find(remote, "board", board)
    reply = await remote.call("board.update", {"board_id": board_id, **changes}, expected_version=expected_version)
    remote.show(reply, lambda: done("Changed board", reply["board"]["id"], reply["board"]["name"]))


@command.command(epilog=example("kandev-host board delete Old\nkandev-host board delete Old --force --yes"))
@click.argument("board")
@click.option(
    "--force",
    is_flag=True,
    help="Also with running agents, which are stopped first, or with work that is nowhere else, which is lost.",
)
@yes_option
@version_option
@asking
async def delete(remote: Remote, board: str, force: bool, yes: bool, expected_version: int | None) -> None:
    """Delete a board, with its columns and tasks, for good.

    At a terminal it says what goes with the board, and asks. With running agents, or with files or
    commits in a workspace that are nowhere else, the host refuses, unless --force.
    """
    board_id = await find(remote, "board", board)
    if not yes:
        confirm(await _what_goes(remote, board_id), yes=yes)
    reply = await remote.call("board.delete", board_id=board_id, force=force, expected_version=expected_version)
    remote.show(reply, lambda: done("Deleted board", board_id, removed(reply)))


async def _what_goes(remote: Remote, board_id: str) -> str:
    found = await remote.call("board.get", board_id=board_id)
    page = await remote.call("task.list", board_id=board_id, limit=COUNT_PAGE)
    tasks, more = len(page["tasks"]), page["next_cursor"] is not None
    goes = f"{counted(len(found['columns']), 'column')} and {counted(tasks, 'task', more=more)}"
    return f"Delete board {found['board']['name']} with its {goes}, and what their agents did?"
