"""`kandev-host queue`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import find_given, short
from kandev_host.cli.options import example
from kandev_host.cli.output import fields, table
from kandev_host.cli.shown import text
from kandev_host.cli.task.running import trigger


@click.group(epilog=example("kandev-host queue list\nkandev-host queue status\nkandev-host queue pause"))
def command() -> None:
    """The tasks that the orchestrator starts by itself, and whether it does."""


@command.command("list", epilog=example("kandev-host queue list\nkandev-host queue list --json | jq '.entries[0]'"))
@click.option("--board", help="Only of this board.")
@paged
@asking
async def list_entries(remote: Remote, board: str | None, **paging: Any) -> None:
    """The queue, the next task first, and what each waits for."""

    def plain(entries: list[dict[str, Any]]) -> None:
        table(
            ["POSITION", "TASK", "PRIORITY", "AGENT", "STATE", "ATTEMPT", "WAITS FOR", "TITLE"],
            (
                [
                    text(entry["position"]),
                    short(entry["task_id"]),
                    text(entry["priority"]),
                    text(entry["agent_type"]),
                    entry["state"],
                    text(entry["attempt"]),
                    (entry["waiting_for"] or {}).get("reason", "-"),
                    entry["title"],
                ]
                for entry in entries
            ),
        )

    board_id = await find_given(remote, "board", board)
    await remote.pages("orchestrator.queue", "entries", plain, paging, board_id=board_id)


@command.command(epilog=example("kandev-host queue status\nkandev-host queue status --json | jq .capacity"))
@asking
async def status(remote: Remote) -> None:
    """How many tasks run and wait, and for how many there is room."""
    reply = await remote.call("orchestrator.status")
    remote.show(reply, lambda: _status(reply))


@command.command(epilog=example("kandev-host queue pause"))
@asking
async def pause(remote: Remote) -> None:
    """Start nothing more from the queue; what runs goes on. Holds over restarts."""
    reply = await remote.call("orchestrator.pause")
    remote.show(reply, lambda: _status(reply))


@command.command(epilog=example("kandev-host queue resume"))
@asking
async def resume(remote: Remote) -> None:
    """Start tasks from the queue again."""
    reply = await remote.call("orchestrator.resume")
    remote.show(reply, lambda: _status(reply))


command.add_command(trigger)


def _status(reply: Mapping[str, Any]) -> None:
    counts = [(name, reply[name]) for name in ("auto_start", "paused", "running", "queued", "retries")]
    fields([*counts, *((f"agents {name}", value) for name, value in reply["capacity"].items())])
    table(
        ["AGENT", "RUNNING", "QUEUED", "LIMIT"],
        (
            [kind["agent_type"], text(kind["running"]), text(kind["queued"]), text(kind["limit"])]
            for kind in reply["agent_types"]
        ),
    )
