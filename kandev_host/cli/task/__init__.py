"""`kandev-host task`."""

from __future__ import annotations

import click

from kandev_host.cli.options import example
from kandev_host.cli.task.allowing import allow
from kandev_host.cli.task.changing import create, delete, move, state, update
from kandev_host.cli.task.reading import diff, events, list_tasks, show
from kandev_host.cli.task.running import complete, prompt, start, stop, trigger


@click.group(
    epilog=example(
        "kandev-host task create 'Fix the log-in' --repo . --agent demo\n"
        "kandev-host task list --state blocked\n"
        "kandev-host task show 0c9e6a41"
    )
)
def command() -> None:
    """Tasks: make, find, change, run and delete them.

    TASK is an id, or its ending as tables show it: the last 6 characters or more.
    """


for each in (
    list_tasks,
    show,
    create,
    update,
    allow,
    move,
    state,
    delete,
    events,
    start,
    stop,
    prompt,
    complete,
    trigger,
    diff,
):
    command.add_command(each)
