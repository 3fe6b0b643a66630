"""What `permission` and `elicitation` have in common: requests of agents, listed and looked up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import find_given
from kandev_host.cli.options import example
from kandev_host.cli.output import console

if TYPE_CHECKING:
    from kandev_host.cli.running.ask import Asker

PAGE = 500


def list_command(kind: str, states: Sequence[str], table: Callable[..., Any], meaning: str) -> click.Command:
    """`kandev-host KIND list`: what waits for an answer, unless told otherwise."""

    @click.command(
        "list",
        help=f"{meaning}; what waits for an answer, unless --state says otherwise.",
        epilog=example(f"kandev-host {kind} list\nkandev-host {kind} list --state {states[1]} --all"),
    )
    @click.option("--agent", help="Only of this agent.")
    @click.option("--task", help="Only of this task.")
    @click.option(
        "--state", type=click.Choice(states), help="Only in this state [default: pending].", default=states[0]
    )
    @click.option("--any-state", is_flag=True, help="In any state.")
    @paged
    @asking
    async def command(
        remote: Remote, agent: str | None, task: str | None, state: str, any_state: bool, **paging: Any
    ) -> None:
        await remote.pages(
            f"{kind}.list",
            f"{kind}s",
            table,
            paging,
            agent_id=await find_given(remote, "agent", agent),
            task_id=await find_given(remote, "task", task),
            state=None if any_state else state,
        )

    return command


async def row_of(remote: Remote, kind: str, identity: str, missing: str, state: str | None = None) -> Mapping[str, Any]:
    """The request itself, which only lists hold. Raises `click.UsageError` saying `missing`."""
    cursor = None
    while True:
        page = await remote.call(f"{kind}.list", limit=PAGE, cursor=cursor, state=state)
        for row in page[f"{kind}s"]:
            if row["id"] == identity:
                return dict(row)
        cursor = page["next_cursor"]
        if cursor is None:
            raise click.UsageError(missing)


def asker(remote: Remote, otherwise: str) -> Asker:
    """Who asks the person at this terminal. Raises `click.UsageError` where there is none, saying what else to do."""
    if not os.isatty(0):
        raise click.UsageError(f"Nobody can be asked here: {otherwise}.")
    from kandev_host.cli.running.ask import Asker

    return Asker(console(stderr=remote.as_json), interactive=True)
