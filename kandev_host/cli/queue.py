"""`kandev-host queue`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import find_given, short
from kandev_host.cli.options import example
from kandev_host.cli.output import fields, hints, table
from kandev_host.cli.shown import moment, text
from kandev_host.cli.task.running import trigger

# Where the bound is set that keeps an entry waiting, by its scope.
_BOUNDS = {
    "host": "[orchestrator] max_agents",
    "board": "[orchestrator] max_agents_per_board",
    "agent_type": "[agents.{}] max_agents",
}


@click.group(epilog=example("kandev-host queue list\nkandev-host queue status\nkandev-host queue pause"))
def command() -> None:
    """The tasks that the orchestrator starts by itself, and whether it does."""


@command.command("list", epilog=example("kandev-host queue list\nkandev-host queue list --json | jq '.entries[0]'"))
@click.option("--board", help="Only of this board.")
@paged
@asking
async def list_entries(remote: Remote, board: str | None, **paging: Any) -> None:
    """The queue, the next task first, what each waits for, and what can be done about that."""
    board_id = await find_given(remote, "board", board)
    status = {} if remote.as_json else await remote.call("orchestrator.status")

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
                    _waits(entry["waiting_for"]),
                    entry["title"],
                ]
                for entry in entries
            ),
        )
        capacity = status["capacity"]
        click.echo(f"Agents: {capacity['used']} of {capacity['limit']}" + (", paused" if status["paused"] else ""))
        hints(dict.fromkeys(hint for entry in entries if (hint := _to_do(entry)) is not None))

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


def _waits(waiting: Mapping[str, Any] | None) -> str:
    """What an entry waits for; `-` is nothing: it is about to start."""
    if waiting is None:
        return "-"
    if waiting["kind"] == "task":
        return ", ".join(f"{blocker['title']} ({blocker['state']})" for blocker in waiting["tasks"])
    if waiting["kind"] == "backoff":
        return f"{moment(waiting['until'])}: {waiting['reason']}"
    if waiting["kind"] == "capacity":
        return f"{waiting['reason']} ({waiting['used']} of {waiting['limit']})"
    return str(waiting["reason"])


def _to_do(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a person can do so that it starts; None where waiting is all."""
    waiting, task = entry["waiting_for"] or {}, short(entry["task_id"])
    match waiting.get("kind"):
        case "task":
            ended = [blocker for blocker in waiting["tasks"] if blocker["state"] in {"FAILED", "CANCELLED"}]
            if not ended:
                return None
            again = f"kandev-host task start {short(ended[0]['task_id'])}"
            return task, f"{again} runs again what it waits for; kandev-host task update {task} --clear blocked-by"
        case "backoff":
            return task, f"to start it now: kandev-host task start {task}"
        case "agent_unavailable" if waiting["fix"]:
            return str(entry["agent_type"]), waiting["fix"]
        case "paused":
            return "The queue is paused", "kandev-host queue resume"
        case "capacity" if waiting["scope"] == "task":
            return task, f"its agent still lives: kandev-host agent list --task {task} --status running"
        case "capacity":
            setting = _BOUNDS[waiting["scope"]].format(entry["agent_type"])
            return f"More than {waiting['limit']} at once", f"kandev-host task start TASK, or set {setting}"
    return None


def _status(reply: Mapping[str, Any]) -> None:
    counts = [(name, reply[name]) for name in ("auto_start", "paused", "running", "queued", "retries", "attempts")]
    fields([*counts, *((f"agents {name}", value) for name, value in reply["capacity"].items())])
    table(
        ["AGENT", "RUNNING", "QUEUED", "LIMIT"],
        (
            [kind["agent_type"], text(kind["running"]), text(kind["queued"]), text(kind["limit"])]
            for kind in reply["agent_types"]
        ),
    )
