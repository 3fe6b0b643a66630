"""`kandev-host link`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.options import example
from kandev_host.errors import StartupError


@click.command(epilog=example("kandev-host link\nkandev-host link --json | jq -r .url"))
@asking
async def command(remote: Remote) -> None:
    """Print a link that logs a browser in, once, within a minute.

    The code in it comes after a #, which browsers send to nobody. Whoever opens it first is logged in: give it to no
    chat and no history. The log-in ends after `gateway.session_lifetime_s`, with "Log out", or with the token.
    """
    reply: dict[str, Any] = await remote.call("auth.ticket")
    if reply["url"] is None:
        raise StartupError("this host listens on a Unix socket, which browsers do not reach: start it without --unix")
    remote.show(reply, lambda: click.echo(reply["url"]))
