"""`kandev-host agent list`, `status`, `log` and `transcript`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.agent.raw import show_capture
from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import find, find_given
from kandev_host.cli.options import example
from kandev_host.cli.output import console, emit, fields
from kandev_host.cli.shown import agent_table, moment
from kandev_host.printable import printable

_STATUSES = click.Choice(["PENDING", "STARTING", "RUNNING", "COMPLETED", "FAILED", "STOPPED"], case_sensitive=False)
_LEVELS = click.Choice(["debug", "info", "warning", "error"])
_SHOWN = (
    "id", "task_id", "agent_type", "runtime", "container_name", "container_id", "image_name", "status", "activity",
    "preset", "preset_expires_at", "attempt", "resumed_from", "exit_code", "failure", "error_message", "started_at",
    "stopped_at",
)  # fmt: skip
PAGE = 500


@click.command(
    "list", epilog=example("kandev-host agent list --status running\nkandev-host agent list --task 0c9e6a41")
)
@click.option("--task", help="Only of this task.")
@click.option("--status", type=_STATUSES, help="Only with this status.")
@paged
@asking
async def list_agents(remote: Remote, task: str | None, status: str | None, **paging: Any) -> None:
    """Agents that run or ran, newest first."""
    task_id = await find_given(remote, "task", task)
    await remote.pages("agent.list", "agents", agent_table, paging, task_id=task_id, status=status)


@click.command(
    epilog=example("kandev-host agent status 7b1d20f3\nkandev-host agent status 7b1d20f3 --json | jq .usage")
)
@click.argument("agent")
@asking
async def status(remote: Remote, agent: str) -> None:
    """How an agent does: what it is at, what it may do without asking, what it uses, how it ended."""
    reply = await remote.call("agent.status", agent_id=await find(remote, "agent", agent))

    def plain() -> None:
        row, session = reply["agent"], reply["session"] or {}
        pairs = [(name, row[name]) for name in _SHOWN]
        pairs += [("session", session.get("acp_session_id"))]
        fields([*pairs, *reply["resource_use"].items(), *reply["usage"].items()])

    remote.show(reply, plain)


@click.command(
    epilog=example(
        "kandev-host agent log 7b1d20f3 --level warning\n"
        "kandev-host agent log 7b1d20f3 --all\n"
        "kandev-host agent log 7b1d20f3 --raw | jq -c 'select(.dir == \"out\").line'\n"
        "kandev-host agent log 7b1d20f3 --raw --follow"
    )
)
@click.argument("agent")
@click.option("--level", type=_LEVELS, help="Only of this level or a higher one.")
@click.option("--raw", is_flag=True, help="All that went over its pipes instead, one JSON object a line.")
@click.option("--follow", "-f", is_flag=True, help="With --raw: go on until the agent has ended.")
@paged
@asking
async def log(remote: Remote, agent: str, level: str | None, raw: bool, follow: bool, **paging: Any) -> None:
    """What an agent wrote to stderr, and what the host noted about it; oldest first.

    With --raw, what went over its pipes as the host keeps it: {"at", "dir": "in" | "out" | "err", "line"}, where
    `line` is JSON as it came, or a string. Keys and passwords that the host knows are "[redacted]".
    """
    if raw:
        if level is not None or paging["limit"] is not None or paging["cursor"] is not None:
            raise click.UsageError("--raw shows all there is, without --level, --limit and --cursor.")
        await show_capture(remote, await find(remote, "agent", agent), follow=follow)
        return
    if follow:
        raise click.UsageError("--follow goes with --raw.")

    def plain(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            click.echo(printable(f"{moment(row['created_at'])} {row['log_level']:7} {row['message']}"))

    agent_id = await find(remote, "agent", agent)
    await remote.pages("agent.logs", "logs", plain, paging, agent_id=agent_id, level=level)


@click.command(
    epilog=example("kandev-host agent transcript 7b1d20f3\nkandev-host agent transcript --task 0c9e6a41 --all --json")
)
@click.argument("agent", required=False)
@click.option("--task", help="Of all agents of this task.")
@click.option("--after", "after_seq", type=click.IntRange(0), metavar="SEQ", help="Go on after this event.")
@click.option("--limit", type=click.IntRange(1, PAGE), metavar="N", help="At most so many [default: 100].")
@click.option("--all", "every", is_flag=True, help="All that is stored.")
@asking
async def transcript(
    remote: Remote, agent: str | None, task: str | None, after_seq: int | None, limit: int | None, every: bool
) -> None:
    """What an agent said and did, as it was stored."""
    from kandev_host.cli.running.view import TerminalView

    if (agent is None) == (task is None):
        raise click.UsageError("Name an agent, or --task.")
    agent_id, task_id = await find_given(remote, "agent", agent), await find_given(remote, "task", task)
    view = TerminalView(console())
    while True:
        reply = await remote.call(
            "agent.transcript", agent_id=agent_id, task_id=task_id, after_seq=after_seq, limit=limit
        )
        if remote.as_json:
            emit(reply)
        else:
            for entry in reply["updates"]:
                view.notification(entry)
        after_seq = reply["next_after_seq"]
        if after_seq is None or not every:
            break
    if not remote.as_json:
        view.end()
    if after_seq is not None:
        click.echo(f"There may be more: --after {after_seq} goes on, --all shows all.", err=True)
