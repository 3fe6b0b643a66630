"""`kandev-host host`."""

from __future__ import annotations

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.options import example
from kandev_host.cli.output import fields, table


@click.group(epilog=example("kandev-host host health\nkandev-host host info --json | jq .limits"))
def command() -> None:
    """Ask the running host how it is."""


@command.command(epilog=example("kandev-host host health\nkandev-host host health --json | jq -e '.status == \"ok\"'"))
@asking
async def health(remote: Remote) -> int:
    """Is the host well? Exit status 1 if it is not."""
    reply = await remote.call("health.check")
    remote.show(reply, lambda: fields(reply.items()))
    return 0 if reply["status"] == "ok" else 1


@command.command(epilog=example("kandev-host host info\nkandev-host host info --json | jq .runtimes"))
@asking
async def info(remote: Remote) -> None:
    """Version, plugins, runtimes, agents and limits of the running host."""
    reply = await remote.call("host.info")

    def plain() -> None:
        about = [(name, reply[name]) for name in ("version", "protocol_version", "journal_id")]
        fields([*about, *((f"limit {name}", value) for name, value in reply["limits"].items())])
        table(
            ["RUNTIME", "STATE", "REASON"],
            (
                [
                    runtime["name"] + (" (default)" if runtime["default"] else ""),
                    "ok" if runtime["availability"]["ok"] else "missing",
                    runtime["availability"]["reason"] or "",
                ]
                for runtime in reply["runtimes"]
            ),
        )

    remote.show(reply, plain)
