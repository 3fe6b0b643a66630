"""`kandev-host token`."""

from __future__ import annotations

from pathlib import Path

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit
from kandev_host.presence import running
from kandev_host.settings.load import prepare_data_dir


@click.command(
    epilog=example(
        "kandev-host token\nKANDEV_TOKEN=$(kandev-host token --show) ./my-client\nkandev-host token --rotate"
    )
)
@settings_options
@click.option("--show", is_flag=True, help="Print the token itself.")
@click.option("--rotate", is_flag=True, help="Make a new token; the old one is worth nothing any more.")
@as_json
def command(config: Path | None, data_dir: Path | None, show: bool, rotate: bool, as_json: bool) -> None:
    """Show where the log-in token lies, or replace it. It is made if there is none yet."""
    from kandev_host.gateway.tokens import TOKEN_FILE, load_token

    folder = prepare_data_dir(load_settings(config, data_dir).data_dir)
    path = folder / TOKEN_FILE
    if rotate:
        path.unlink(missing_ok=True)
    token = load_token(folder)
    host = running(folder) if rotate else None
    if host is not None:
        _use_once(host.url, token)
    if as_json:
        emit({"path": str(path), "rotated": rotate, **({"token": token} if show else {})})
    else:
        click.echo(token if show else path)
        if rotate:
            click.echo("The old token is worth nothing any more; sockets that are open by it close.", err=True)


def _use_once(url: str, token: str) -> None:
    """Return when the running host has taken the new token: then the old one is worth nothing."""
    import anyio

    from kandev_host.client import connect

    async def log_in() -> None:
        async with connect(url, token) as client:
            await client.call("health.check")

    anyio.run(log_in)
