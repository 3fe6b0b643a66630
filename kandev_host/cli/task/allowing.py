"""`kandev-host task allow`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find
from kandev_host.cli.options import example
from kandev_host.cli.output import done
from kandev_host.printable import printable


@click.command(
    "allow",
    epilog=example(
        "kandev-host task allow 0c9e6a41\n"
        "kandev-host task allow 0c9e6a41 @npm git.example.org:8443\n"
        "kandev-host task allow 0c9e6a41 '*.example.org' --remove"
    ),
)
@click.argument("task")
@click.argument("entries", metavar="[ENTRY]...", nargs=-1)
@click.option("--remove", is_flag=True, help="Take these entries back; without any, all of them.")
@asking
async def allow(remote: Remote, task: str, entries: tuple[str, ...], remove: bool) -> None:
    """Show, or add to, what the agents of a task may reach.

    An ENTRY is a name (on ports 80 and 443), *.name, name:port, an address, 127.0.0.1:PORT or @preset. A name holds
    at once, also for an agent that runs; what is taken back, and 127.0.0.1:PORT, from its next start on.
    """
    task_id = await find(remote, "task", task)
    reply = await remote.call("task.get", task_id=task_id)
    if entries or remove:
        present = reply["task"]["allow"]
        wanted = _without(present, entries) if remove else list(dict.fromkeys((*present, *entries)))
        version = reply["task"]["version"]
        reply = await remote.call("task.update", {"allow": wanted}, task_id=task_id, expected_version=version)
    remote.show(reply, lambda: _show(reply["task"], changed=bool(entries or remove)))


def _without(present: list[str], entries: tuple[str, ...]) -> list[str]:
    unknown = [entry for entry in entries if entry not in present]
    if unknown:
        raise click.UsageError(f"{unknown[0]!r} is not among them: {', '.join(present) or 'there are none'}.")
    return [entry for entry in present if entries and entry not in entries]


def _show(task: dict[str, Any], *, changed: bool) -> None:
    if changed:
        done("Changed task", task["id"], task["title"])
    for entry in task["allow"]:
        click.echo(printable(entry))
    if not task["allow"]:
        click.echo("Nothing of its own: its agents reach what their type may.", err=True)
