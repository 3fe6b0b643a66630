"""`kandev-host workspace delete`."""

from __future__ import annotations

import click

from kandev_host.cli.asking import Remote, asking, confirm, yes_option
from kandev_host.cli.ids import find, short
from kandev_host.cli.options import example
from kandev_host.cli.output import done


@click.command(
    epilog=example("kandev-host workspace delete 0c9e6a41\nkandev-host workspace delete 0c9e6a41 --force --yes")
)
@click.argument("task")
@click.option("--force", is_flag=True, help="Also when it is needed, or has work that is nowhere else: that is lost.")
@yes_option
@asking
async def delete(remote: Remote, task: str, force: bool, yes: bool) -> None:
    """Delete a task's workspace, with the home of its agents, for good; the task stays.

    A later agent of the task gets a new one. The host refuses while an agent, a shell or the queue needs it, or while
    it has files or commits that are nowhere else, unless --force.
    """
    task_id = await find(remote, "task", task)
    confirm(f"Delete the workspace of task {short(task_id)}?", yes=yes)
    reply = await remote.call("workspace.delete", task_id=task_id, force=force)
    ended = ", ".join(f"ended {holder['kind']} {short(holder['id'])}" for holder in reply["ended"])
    told = ended if reply["deleted"] else "there was none"
    remote.show(reply, lambda: done("Deleted the workspace of task", task_id, told))
