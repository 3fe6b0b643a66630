"""`kandev-host plugins`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json, example, load_settings, place, settings_options
from kandev_host.cli.output import emit, table

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

SHOWN = 20


@click.command(
    epilog=example("kandev-host plugins\nkandev-host plugins --json | jq '.plugins[] | select(.state == \"broken\")'")
)
@settings_options
@as_json
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """List the plugins: name, version, distribution, what each provides, and its state.

    Of the host that runs, with what failed since its start; where none runs, as they load now.
    """
    infos = _infos(config, data_dir)
    if as_json:
        emit({"plugins": infos})
        return
    table(
        ["NAME", "VERSION", "DISTRIBUTION", "PROVIDES", "STATE", "REASON"],
        (
            [
                info["name"],
                info["version"] or "-",
                info["distribution"] or "-",
                "; ".join(f"{kind}: {_some(names)}" for kind, names in info["provides"].items()) or "-",
                info["state"],
                info["reason"] or "",
            ]
            for info in infos
        ),
    )


def _infos(config: Path | None, data_dir: Path | None) -> list[dict[str, Any]]:
    from kandev_host.cli.access import remote
    from kandev_host.settings import Settings
    from kandev_host.settings.load import Loaded, data_home

    if remote(Loaded(Settings(), data_home(data_dir)))[0] is not None:
        import anyio

        return anyio.run(_asked, place(config, data_dir))
    from kandev_host.plugins import load_plugins

    return [info.told() for info in load_plugins(load_settings(config, data_dir).settings.plugins).infos]


async def _asked(loaded: Loaded) -> list[dict[str, Any]]:
    from kandev_host.cli.access import running_client

    async with running_client(loaded) as client:
        found: list[dict[str, Any]] = (await client.call("host.info"))["plugins"]
    return found


def _some(names: list[str]) -> str:
    """A table has no room for all actions of the host."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
