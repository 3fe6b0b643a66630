"""`kandev-host reload`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json, example, place, settings_options
from kandev_host.cli.output import emit
from kandev_host.errors import StartupError
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

WAIT_S = 60.0  # host.info looks at the runtimes as well
LOOK_S = 0.3


@click.command(epilog=example("kandev-host reload\nkandev-host reload --json | jq .restart"))
@settings_options
@as_json
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Have the running host read its settings again: its file, its environment and the flags that it was started with.

    Says what it took over, and what only a restart makes true (docs/settings.md has the list). Exit status 1 if the
    settings are wrong: then the old ones hold.
    """
    import anyio

    if "KANDEV_URL" in os.environ:
        raise click.UsageError("KANDEV_URL names a host, perhaps of another machine: unset it, and name --data-dir")
    loaded = place(config, data_dir)
    found = anyio.run(_reload, loaded)
    if as_json:
        emit(found)
    elif found["problem"] is not None:
        click.echo(f"kandev-host: the old settings hold: {printable(found['problem'])}", err=True)
    else:
        click.echo(printable(f"Taken over: {', '.join(found['changed']) or 'nothing was changed'}"))
        if found["restart"]:
            click.echo(printable(f"Only a restart makes true: {', '.join(found['restart'])}"))
    return 0 if found["problem"] is None else 1


async def _reload(loaded: Loaded) -> dict[str, Any]:
    import anyio

    from kandev_host.cli.access import running_client
    from kandev_host.presence import holder

    async with running_client(loaded) as client:
        before = (await client.call("host.info"))["settings"]["loads"]
        with holder(loaded.data_dir) as host:
            if host is None or not host.send(signal.SIGHUP):
                raise StartupError(f"no host runs on {loaded.data_dir}; start it with: kandev-host up")
        with anyio.move_on_after(WAIT_S):
            while True:
                found: dict[str, Any] = (await client.call("host.info"))["settings"]
                if found["loads"] > before:
                    return found
                await anyio.sleep(LOOK_S)
    raise StartupError(f"the host has not read its settings within {WAIT_S:g} s; its log says why: kandev-host logs")
