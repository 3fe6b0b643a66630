"""`kandev-host key`."""

from __future__ import annotations

import re
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, given, paged
from kandev_host.cli.ids import find
from kandev_host.cli.options import example
from kandev_host.cli.output import done, table
from kandev_host.cli.shown import moment
from kandev_host.cli.user import ask, needing_users

_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """30m, 12h or 90d, as seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a time such as 30m, 12h or 90d")
    return int(found[1]) * _UNITS[found[2]]


@click.group(
    epilog=example(
        "kandev-host key create ci --scope boards:read --scope tasks:read --scope tasks:write --scope agents:read"
        " --expires 90d\nkandev-host key list\n"
        "kandev-host key revoke 01a20250-59b5-745b-af2e-50239672a997"
    )
)
def command() -> None:
    """API keys, for programs. Needs the authenticator "users". A key may never more than its owner."""


@command.command(
    epilog=example(
        "kandev-host key create laptop --expires 30d\n"
        "kandev-host key create watcher --scope boards:read --scope tasks:read --scope agents:read --json\n"
        "kandev-host key create runner --scope boards:read --scope tasks:read --scope tasks:write --scope agents:read"
        " --scope agents:run\n"
        "KANDEV_URL=https://board.example:8443 KANDEV_TOKEN=kd_… kandev-host task list"
    )
)
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, help="What it may, as in tasks:read [default: all that its owner may]."
)
@click.option("--expires", callback=_seconds, metavar="TIME", help="As in 30m, 12h or 90d [default: never].")
@click.option("--user", help="Whose key it is [default: yours].")
@asking
async def create(remote: Remote, name: str, scopes: tuple[str, ...], expires: int | None, user: str | None) -> None:
    """A new key. It is shown this once: the host keeps only a hash of it."""
    wanted = given(scopes=list(scopes) or None, expires_in_s=expires, user=user)
    reply = await ask(remote, "key.create", {"name": name, **wanted})

    def plain() -> None:
        click.echo(reply["token"])
        click.echo(f"This is key {reply['key']['id']} ({name}); it is not shown again.", err=True)

    remote.show(reply, plain)


@command.command("list", epilog=example("kandev-host key list\nkandev-host key list --everybody --json"))
@click.option("--user", help="Whose [default: yours].")
@click.option("--everybody", is_flag=True, help="All keys there are.")
@paged
@asking
async def list_keys(remote: Remote, user: str | None, everybody: bool, **paging: Any) -> None:
    """The keys, without the keys themselves. When one was last used is told to the hour."""

    def plain(keys: list[dict[str, Any]]) -> None:
        table(
            ["ID", "NAME", "OWNER", "SCOPES", "EXPIRES", "LAST USED"],
            (
                [
                    key["id"],
                    key["name"],
                    key["owner"],
                    " ".join(key["scopes"]) or "none",
                    moment(key["expires_at"]),
                    moment(key["last_used_at"]),
                ]
                for key in keys
            ),
        )

    with needing_users():
        await remote.pages("key.list", "keys", plain, paging, user=user, everybody=everybody or None)


@command.command(epilog=example("kandev-host key revoke 01a20250-59b5-745b-af2e-50239672a997"))
@click.argument("key", metavar="ID")
@asking
async def revoke(remote: Remote, key: str) -> None:
    """End a key, and all that is open by it, at once.

    ID is all of its id; of a key of yours the last 6 characters or more will do.
    """
    with needing_users():
        key_id = await find(remote, "key", key)
    reply = await ask(remote, "key.revoke", {"key_id": key_id})
    remote.show(reply, lambda: done("Revoked key", reply["key"]["id"], reply["key"]["name"]))
