"""`kandev-host plugins`."""

from __future__ import annotations

from pathlib import Path

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit, table


@click.command(
    epilog=example("kandev-host plugins\nkandev-host plugins --json | jq '.plugins[] | select(.state == \"broken\")'")
)
@settings_options
@as_json
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """List the plugins: name, version, distribution, what each provides, and its state."""
    loaded = load_settings(config, data_dir)
    from kandev_host.plugins import load_plugins

    infos = load_plugins(loaded.settings.plugins).infos
    if as_json:
        emit({"plugins": infos})
        return
    table(
        ["NAME", "VERSION", "DISTRIBUTION", "PROVIDES", "STATE", "REASON"],
        (
            [
                info.name,
                info.version or "-",
                info.distribution or "-",
                "; ".join(f"{kind}: {', '.join(names)}" for kind, names in info.provides.items()) or "-",
                info.state,
                info.reason or "",
            ]
            for info in infos
        ),
    )
