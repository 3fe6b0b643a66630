"""`kandev-host schema`."""

from __future__ import annotations

from pathlib import Path

import click

from kandev_host.cli.options import example, load_settings, settings_options


@click.command(
    epilog=example(
        "kandev-host schema > kandev.json\n"
        "kandev-host schema --output kandev.json\n"
        "curl -s http://127.0.0.1:8080/schema.json    # of a host that runs, with the actions of its plugins"
    )
)
@settings_options
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="File to write instead of stdout."
)
def command(config: Path | None, data_dir: Path | None, output: Path | None) -> None:
    """Print the protocol as an AsyncAPI 3 document.

    For generators of clients, documentation and tests. Address and limits are those of the settings. Actions of plugins
    are not in it: the host that runs has them.
    """
    from kandev_host.errors import StartupError
    from kandev_host.protocol.reference import LIMITS
    from kandev_host.protocol.schema import OFFERS, encoded

    settings = load_settings(config, data_dir).settings
    server = settings.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    address = f"{host}:{server.port}" if server.unix_socket is None else "localhost"
    limits = {name: getattr(settings.gateway, name) for name in LIMITS}
    text = encoded(OFFERS, address=address, limits=limits)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_bytes(text)
    except OSError as error:
        raise StartupError(f"cannot write {output}: {error.strerror}") from error
    click.echo(f"Wrote {output}", err=True)
