"""`kandev-host elicitation`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asked_for import asker, list_command, row_of
from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find
from kandev_host.cli.inputs import json_of, text_of
from kandev_host.cli.options import example
from kandev_host.cli.output import done
from kandev_host.cli.shown import elicitation_table

_STATES = ("pending", "accepted", "declined", "cancelled")


@click.group(epilog=example("kandev-host elicitation list\nkandev-host elicitation answer 5f0c1d22"))
def command() -> None:
    """Forms and addresses that agents ask people for, and the answers."""


command.add_command(list_command("elicitation", _STATES, elicitation_table, "What agents ask people for"))


@command.command(
    epilog=example(
        "kandev-host elicitation answer 5f0c1d22\n"
        "kandev-host elicitation answer 5f0c1d22 --accept\n"
        "kandev-host elicitation answer 5f0c1d22 --content - < filled_in.json\n"
        "kandev-host elicitation answer 5f0c1d22 --decline"
    )
)
@click.argument("elicitation")
@click.option("--accept", "outcome", flag_value="accept", help="Of an address: agree to open it yourself.")
@click.option("--decline", "outcome", flag_value="decline", help="Say no.")
@click.option("--cancel", "outcome", flag_value="cancel", help="Neither yes nor no.")
@click.option("--content", metavar="JSON|-", help="Accept, with the fields of the form; - reads standard input.")
@asking
async def answer(remote: Remote, elicitation: str, outcome: str | None, content: str | None) -> None:
    """Answer what an agent asked for. What is filled in goes to the agent, and the host does not keep it.

    Without an option the form is filled in field by field, if there is a terminal. What is secret is better typed
    there, or piped in: others on this machine can read command lines.
    """
    if content is not None and outcome not in (None, "accept"):
        raise click.UsageError(f"--content and --{outcome} exclude each other.")
    elicitation_id = await find(remote, "elicitation", elicitation)
    if content is not None:
        chosen = {"outcome": "accept", "content": json_of(text_of(content, "content"), "--content")}
    elif outcome is not None:
        chosen = {"outcome": outcome}
    else:
        chosen = await _filled(remote, elicitation_id)
    reply = await remote.call("elicitation.respond", {"elicitation_id": elicitation_id, **chosen})
    remote.show(reply, lambda: done("Elicitation", elicitation_id, reply["elicitation"]["state"]))


async def _filled(remote: Remote, elicitation_id: str) -> dict[str, Any]:
    person = asker(remote, "give --content, --accept, --decline or --cancel")
    missing = f"No elicitation {elicitation_id!r} waits for an answer."
    return await person.fill(await row_of(remote, "elicitation", elicitation_id, missing, state="pending"))
