"""`kandev-host permission`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import find, find_given
from kandev_host.cli.options import example
from kandev_host.cli.output import console, done
from kandev_host.cli.shown import permission_table

_STATES = click.Choice(["pending", "allowed", "rejected", "cancelled"])
PAGE = 500


@click.group(epilog=example("kandev-host permission list\nkandev-host permission answer 5f0c1d22 allow_once"))
def command() -> None:
    """What agents ask for, and the answers."""


@command.command(
    "list", epilog=example("kandev-host permission list\nkandev-host permission list --state allowed --all")
)
@click.option("--agent", help="Only of this agent.")
@click.option("--task", help="Only of this task.")
@click.option("--state", type=_STATES, help="Only in this state [default: pending].", default="pending")
@click.option("--any-state", is_flag=True, help="In any state.")
@paged
@asking
async def list_permissions(
    remote: Remote, agent: str | None, task: str | None, state: str, any_state: bool, **paging: Any
) -> None:
    """Permission requests; those that wait for an answer, unless --state says otherwise."""
    await remote.pages(
        "permission.list",
        "permissions",
        permission_table,
        paging,
        agent_id=await find_given(remote, "agent", agent),
        task_id=await find_given(remote, "task", task),
        state=None if any_state else state,
    )


@command.command(
    epilog=example(
        "kandev-host permission answer 5f0c1d22\n"
        "kandev-host permission answer 5f0c1d22 allow_once\n"
        "kandev-host permission answer 5f0c1d22 --cancel"
    )
)
@click.argument("permission")
@click.argument("option", required=False)
@click.option("--cancel", is_flag=True, help="Neither allow nor reject: the request is taken back.")
@asking
async def answer(remote: Remote, permission: str, option: str | None, cancel: bool) -> None:
    """Answer a request. OPTION is the id of one of its options, or its kind (allow_once, reject_once, …).

    Without OPTION the request is shown in full and asked about, if there is a terminal.
    """
    if cancel and option is not None:
        raise click.UsageError("OPTION and --cancel exclude each other.")
    permission_id = await find(remote, "permission", permission)
    chosen = {"outcome": "cancelled"} if cancel else await _chosen(remote, permission_id, option)
    reply = await remote.call("permission.respond", permission_id=permission_id, **chosen)
    remote.show(reply, lambda: done("Permission", permission_id, reply["permission"]["state"]))


async def _chosen(remote: Remote, permission_id: str, option: str | None) -> dict[str, Any]:
    request = await _request(remote, permission_id)
    options = request["options"]
    if option is None:
        if not os.isatty(0):
            raise click.UsageError("Nobody can be asked here: name the OPTION, or --cancel.")
        from kandev_host.cli.running.ask import Asker

        return await Asker(console(stderr=remote.as_json), interactive=True).ask(request)
    for key in ("optionId", "kind"):
        found = [each["optionId"] for each in options if each.get(key) == option]
        if len(found) == 1:
            return {"option_id": found[0]}
    known = ", ".join(f"{each.get('optionId')} ({each.get('kind')})" for each in options)
    raise click.UsageError(f"{option!r} is not one of its options: {known}")


async def _request(remote: Remote, permission_id: str) -> Mapping[str, Any]:
    cursor = None
    while True:
        page = await remote.call("permission.list", limit=PAGE, cursor=cursor)
        for row in page["permissions"]:
            if row["id"] == permission_id:
                return dict(row)
        cursor = page["next_cursor"]
        if cursor is None:
            raise click.UsageError(f"There is no permission {permission_id!r}.")
