"""`kandev-host agent types`, `enable` and `disable`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.inputs import resource_options, resources_of
from kandev_host.cli.options import as_json as json_option
from kandev_host.cli.options import example, load_settings, settings_options
from kandev_host.cli.output import emit, hints, table
from kandev_host.cli.shown import credential
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded


@click.command(
    epilog=example(
        "kandev-host agent types\nkandev-host agent types --json | jq '.agent_types[] | select(.availability.ok)'"
    )
)
@settings_options
@json_option
def types(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """The agents that there are: which can be started here, and what the others need. No host has to run."""
    loaded = load_settings(config, data_dir)
    import anyio

    from kandev_host.logs import logging_to

    with logging_to(loaded.settings.log):
        found = anyio.run(_agent_types, loaded)
    if as_json:
        emit(found)
        return
    table(
        ["NAME", "STATE", "RUNTIME", "COMMAND", "CREDENTIALS", "WHY NOT"],
        (
            [
                kind["name"],
                "ok" if kind["availability"]["ok"] else "missing" if kind["enabled"] else "disabled",
                kind["runtime"],
                " ".join(kind["command"]),
                ", ".join(map(credential, kind["credentials"])),
                kind["availability"]["reason"] or "",
            ]
            for kind in found["agent_types"]
        ),
    )
    fixes = ((kind["name"], kind["availability"].get("fix")) for kind in found["agent_types"])
    hints((f"To use {name}", fix) for name, fix in fixes if fix)


@click.command(epilog=example("kandev-host agent enable opencode"))
@click.argument("name")
@asking
async def enable(remote: Remote, name: str) -> None:
    """Let an agent be started again."""
    await _update(remote, name, {"enabled": True})


@click.command(epilog=example("kandev-host agent disable opencode"))
@click.argument("name")
@asking
async def disable(remote: Remote, name: str) -> None:
    """Let an agent not be started any more; what runs goes on."""
    await _update(remote, name, {"enabled": False})


@click.command(epilog=example("kandev-host agent limit opencode --memory 4g --cpu 2\nkandev-host agent limit opencode"))
@click.argument("name")
@resource_options
@asking
async def limit(remote: Remote, name: str, cpu: str | None, memory: str | None, disk: str | None) -> None:
    """Limit what each new run of an agent may use; without options, as its plugin says."""
    await _update(remote, name, {"default_resources": resources_of(cpu, memory, disk)})


async def _update(remote: Remote, name: str, changes: dict[str, Any]) -> None:
    reply = await remote.call("agent.type_update", {"name": name, **changes})
    kind = reply["agent_type"]
    limits = ", ".join(f"{key} {value}" for key, value in kind["default_resources"].items() if value is not None)
    state = "enabled" if kind["enabled"] else "disabled"
    remote.show(reply, lambda: click.echo(printable(f"Agent {kind['name']}: {state}, limits: {limits or 'none'}")))


async def _agent_types(loaded: Loaded) -> Any:
    from kandev_host.cli.access import open_client

    async with open_client(loaded) as (client, _url):
        return await client.call("agent.types")
