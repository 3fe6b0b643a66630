"""`kandev-host workspace`."""

from __future__ import annotations

import click

from kandev_host.cli.options import example
from kandev_host.cli.workspace.history import diff, restore, snapshot, snapshots
from kandev_host.cli.workspace.looking import files, get, read
from kandev_host.cli.workspace.outcome import commits
from kandev_host.cli.workspace.removing import delete


@click.group(
    epilog=example(
        "kandev-host workspace get 0c9e6a41\n"
        "kandev-host workspace files 0c9e6a41 src --depth 3\n"
        "kandev-host workspace read 0c9e6a41 README.md\n"
        "kandev-host workspace snapshots 0c9e6a41\n"
        "kandev-host workspace diff 0c9e6a41 --from 5d1f02aa\n"
        "kandev-host workspace restore 0c9e6a41 5d1f02aa"
    )
)
def command() -> None:
    """The folders that agents work in, one for each task.

    TASK and SNAPSHOT are ids, or their endings as tables show them: the last 6 characters or more.
    """


for each in (get, files, read, snapshot, snapshots, diff, restore, commits, delete):
    command.add_command(each)
