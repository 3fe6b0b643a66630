"""`kandev-host agent queue`, `queue-edit` and `queue-remove`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find, is_ending, is_id, short
from kandev_host.cli.inputs import blocks_option, prompt_of
from kandev_host.cli.options import example
from kandev_host.cli.output import table
from kandev_host.cli.shown import moment

SHOWN_CHARS = 200
LOOKED_AT = 100
"""Agents whose queues are looked through for the ending of an id: half of what one connection may ask at once."""


async def _prompt_id(remote: Remote, text: str) -> str:
    """The id of the prompt that waits and ends so. Raises `UsageError` for none, or for several.

    A whole id is not looked up. Prompts are in no list of their own, so an ending is looked for in the queues of the
    newest agents; one request each is what keeps them few.
    """
    wanted = text.strip().lower()
    if is_id(wanted):
        return wanted
    if not is_ending(wanted):
        raise click.UsageError(f"{text!r} is no prompt id: give the ID that `kandev-host agent queue AGENT` shows.")
    agents = (await remote.call("agent.list", limit=LOOKED_AT))["agents"]
    queues = [
        (await remote.call("queue.list", agent_id=agent["id"]))["prompts"]
        for agent in agents
        if agent["status"] != "COMPLETED"
    ]
    found = [row["prompt_id"] for queue in queues for row in queue if row["prompt_id"].endswith(wanted)]
    if len(found) > 1:
        raise click.UsageError(f"{text!r} stands for {len(found)} prompts: {', '.join(found[:5])}; give the whole id.")
    if not found:
        raise click.UsageError(
            f"No prompt {text!r} waits for the newest {LOOKED_AT} agents; see: kandev-host agent queue AGENT."
        )
    return str(found[0])


def _show(reply: dict[str, Any]) -> None:
    """The prompts that wait, one a line."""
    if not reply["prompts"]:
        click.echo("No prompt waits.")
        return
    table(
        ["PLACE", "ID", "SINCE", "PROMPT"],
        (
            [str(row["position"]), short(row["prompt_id"]), moment(row["created_at"]), _text(row["prompt"])]
            for row in reply["prompts"]
        ),
    )


def _text(blocks: list[dict[str, Any]]) -> str:
    parts = (block.get("text") if block.get("type") == "text" else f"[{block.get('type')}]" for block in blocks)
    return " ".join(str(part) for part in parts)[:SHOWN_CHARS]


@click.command(
    epilog=example("kandev-host agent queue 7b1d20f3\nkandev-host agent queue 7b1d20f3 --json | jq .prompts")
)
@click.argument("agent")
@asking
async def queue(remote: Remote, agent: str) -> None:
    """The prompts that wait for an agent, the next one first; also those that outlived its run.

    They wait until the turn before has ended, or until an agent that ended is resumed.
    """
    reply = await remote.call("queue.list", agent_id=await find(remote, "agent", agent))
    remote.show(reply, lambda: _show(reply))


@click.command(
    "queue-edit",
    epilog=example(
        "kandev-host agent queue-edit 3b2ac41e 'Write the tests first'\n"
        "kandev-host agent queue-edit 3b2ac41e --position 0"
    ),
)
@click.argument("prompt_id", metavar="ID")
@click.argument("prompt", required=False)
@click.option("--position", type=click.IntRange(0), metavar="N", help="Its new place; 0 is next.")
@blocks_option
@asking
async def queue_edit(remote: Remote, prompt_id: str, prompt: str | None, position: int | None, blocks: bool) -> None:
    """Change or move a prompt that waits. PROMPT - reads standard input."""
    if prompt is None and position is None:
        raise click.UsageError("Give the new PROMPT, --position, or both.")
    said = None if prompt is None else prompt_of(prompt, blocks=blocks)
    reply = await remote.call(
        "queue.update", prompt_id=await _prompt_id(remote, prompt_id), prompt=said, position=position
    )
    remote.show(reply, lambda: _show(reply))


@click.command("queue-remove", epilog=example("kandev-host agent queue-remove 3b2ac41e"))
@click.argument("prompt_id", metavar="ID")
@asking
async def queue_remove(remote: Remote, prompt_id: str) -> None:
    """Take out a prompt that waits; it is not sent."""
    reply = await remote.call("queue.remove", prompt_id=await _prompt_id(remote, prompt_id))
    remote.show(reply, lambda: _show(reply))
