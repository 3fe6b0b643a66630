"""`kandev-host search`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find_given, short
from kandev_host.cli.options import example
from kandev_host.cli.output import table
from kandev_host.cli.shown import text

_KINDS = click.Choice(["task", "message", "log", "command"])


@click.command(
    epilog=example(
        "kandev-host search 'log-in bug'\n"
        "kandev-host search '\"connection refused\"' --kind log --kind message\n"
        "kandev-host search 'migrat*' --task 0c9e6a41 --json | jq .hits"
    )
)
@click.argument("query", metavar="TEXT")
@click.option("--kind", "kinds", type=_KINDS, multiple=True, help="Only in these; repeatable.")
@click.option("--task", help="Only of this task.")
@click.option("--limit", type=click.IntRange(1, 500), metavar="N", help="At most so many.")
@asking
async def command(remote: Remote, query: str, kinds: tuple[str, ...], task: str | None, limit: int | None) -> None:
    """Search tasks, messages, logs and commands; the best first.

    Words must all be there, in any order; "…" is a phrase, and word* a beginning. Any text is allowed.
    """
    task_id = await find_given(remote, "task", task)
    reply = await remote.call("search.query", text=query, kinds=list(kinds) or None, task_id=task_id, limit=limit)

    def plain() -> None:
        hits: list[dict[str, Any]] = reply["hits"]
        table(
            ["KIND", "TASK", "WHERE"],
            ([hit["kind"], short(hit["task_id"]), text(hit["snippet"])] for hit in hits),
        )

    remote.show(reply, plain)
