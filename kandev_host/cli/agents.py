"""`kandev-host agents`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit, table

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded


@click.command(
    epilog=example("kandev-host agents\nkandev-host agents --json | jq '.agent_types[] | select(.availability.ok)'")
)
@settings_options
@as_json
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """List the agents: which can be started here, and what the others need."""
    loaded = load_settings(config, data_dir)
    import anyio

    from kandev_host.logs import logging_to

    with logging_to(loaded.settings.log):
        found = anyio.run(_agent_types, loaded)
    if as_json:
        emit(found)
        return
    table(
        ["NAME", "STATE", "RUNTIME", "COMMAND", "WHAT IT NEEDS"],
        (
            [
                kind["name"],
                "ok" if kind["availability"]["ok"] else "missing",
                kind["runtime"],
                " ".join(kind["command"]),
                "" if kind["availability"]["ok"] else _needs(kind["availability"]),
            ]
            for kind in found["agent_types"]
        ),
    )


async def _agent_types(loaded: Loaded) -> Any:
    from kandev_host.cli.access import open_client

    async with open_client(loaded) as (client, _url):
        return await client.call("agent.types")


def _needs(availability: dict[str, Any]) -> str:
    fix = availability.get("fix")
    return f"{availability['reason'].rstrip('.')}." + (f" Fix: {fix}" if fix else "")
