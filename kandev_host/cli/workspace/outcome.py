"""`kandev-host workspace commits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find
from kandev_host.cli.options import example
from kandev_host.cli.output import counted, hints, table
from kandev_host.cli.shown import moment
from kandev_host.printable import printable

SHOWN_CHARS = 10


@click.command(
    epilog=example(
        "kandev-host workspace commits 0c9e6a41\n"
        "kandev-host workspace commits 0c9e6a41 --push-to fix-log-in\n"
        "kandev-host workspace commits 0c9e6a41 --json | jq -r '.commits[].message'"
    )
)
@click.argument("task")
@click.option("--push-to", metavar="BRANCH", help="Bring them into your local repository, as a new branch.")
@click.option("--approve-protected", is_flag=True, help="Also those that change what configures git, agents or CI.")
@click.option("--force", is_flag=True, help="Move a branch that is there already, if that is forward.")
@asking
async def commits(remote: Remote, task: str, push_to: str | None, approve_protected: bool, force: bool) -> None:
    """What the agents of a task committed, newest first, and taking it home."""
    task_id = await find(remote, "task", task)
    reply = await remote.call(
        "workspace.commits", task_id=task_id, push_to=push_to, approve_protected=approve_protected, force=force
    )
    remote.show(reply, lambda: _plain(reply))


def _plain(reply: Mapping[str, Any]) -> None:
    table(
        ["COMMIT", "WHEN", "AUTHOR", "MESSAGE"],
        (
            [
                commit["commit"][:SHOWN_CHARS],
                moment(commit["authored_at"]),
                commit["author_name"],
                commit["message"].partition("\n")[0],
            ]
            for commit in reply["commits"]
        ),
    )
    if reply["truncated"]:
        click.echo("There are more, or longer ones; these are the newest.", err=True)
    pushed = reply["pushed"]
    if pushed is not None:
        told = f"{counted(pushed['commits'], 'commit')} in {pushed['repository']}, branch {pushed['branch']}"
        click.echo(printable(f"Took home {told}"))
        hints([("To look at it", f"git log -p {pushed['branch']}")])
