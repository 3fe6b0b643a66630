"""`kandev-host permission`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asked_for import asker, list_command, row_of
from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import find, find_given, short
from kandev_host.cli.options import example
from kandev_host.cli.output import done
from kandev_host.cli.shown import permission_table, rule_table

_STATES = ("pending", "allowed", "rejected", "cancelled")


@click.group(epilog=example("kandev-host permission list\nkandev-host permission answer 5f0c1d22 allow_once"))
def command() -> None:
    """What agents ask for, and the answers."""


command.add_command(list_command("permission", _STATES, permission_table, "Permission requests"))


@command.command(
    epilog=example(
        "kandev-host permission answer 5f0c1d22\n"
        "kandev-host permission answer 5f0c1d22 allow_once --remember task\n"
        "kandev-host permission answer 5f0c1d22 --cancel"
    )
)
@click.argument("permission")
@click.argument("option", required=False)
@click.option("--cancel", is_flag=True, help="Neither allow nor reject: the request is taken back.")
@click.option(
    "--remember",
    type=click.Choice(["task", "agent_type"]),
    help="Answer the same call so again: in this task, or for this agent type.",
)
@asking
async def answer(remote: Remote, permission: str, option: str | None, cancel: bool, remember: str | None) -> None:
    """Answer a request. OPTION is the id of one of its options, or its kind (allow_once, reject_once, …).

    Without OPTION the request is shown in full and asked about, if there is a terminal.
    """
    if cancel and option is not None:
        raise click.UsageError("OPTION and --cancel exclude each other.")
    permission_id = await find(remote, "permission", permission)
    chosen = {"outcome": "cancelled"} if cancel else await _chosen(remote, permission_id, option)
    chosen = {"remember": remember, **chosen}
    reply = await remote.call("permission.respond", permission_id=permission_id, **chosen)
    rule = reply["rule"]
    known = f", remembered as rule {short(rule['id'])}" if rule else ""
    remote.show(reply, lambda: done("Permission", permission_id, reply["permission"]["state"] + known))


@command.command(epilog=example("kandev-host permission rules\nkandev-host permission rules --agent claude"))
@click.option("--agent", help="Only those that name this agent type.")
@click.option("--task", help="Only those that name this task.")
@paged
@asking
async def rules(remote: Remote, agent: str | None, task: str | None, **paging: Any) -> None:
    """The rules of permission: those of the settings, and those that were remembered."""
    task_id = await find_given(remote, "task", task)
    await remote.pages("permission.rules", "rules", rule_table, paging, agent_type=agent, task_id=task_id)


@command.command(epilog=example("kandev-host permission forget 5f0c1d22"))
@click.argument("rule")
@asking
async def forget(remote: Remote, rule: str) -> None:
    """Delete a rule that was remembered. Those of the settings stand there."""
    rule_id = rule if rule.startswith("settings:") else await find(remote, "rule", rule)
    reply = await remote.call("permission.rule_delete", rule_id=rule_id)
    remote.show(reply, lambda: done("Rule", rule_id, "forgotten"))


async def _chosen(remote: Remote, permission_id: str, option: str | None) -> dict[str, Any]:
    request = await row_of(remote, "permission", permission_id, f"There is no permission {permission_id!r}.")
    seen = {"digest": request["digest"]}
    options = request["options"]
    if option is None:
        return seen | await asker(remote, "name the OPTION, or --cancel").ask(request)
    for key in ("optionId", "kind"):
        found = [each["optionId"] for each in options if each.get(key) == option]
        if len(found) == 1:
            return seen | {"option_id": found[0]}
    known = ", ".join(f"{each.get('optionId')} ({each.get('kind')})" for each in options)
    raise click.UsageError(f"{option!r} is not one of its options: {known}")
