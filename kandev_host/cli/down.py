"""`kandev-host down`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json, example, place, settings_options
from kandev_host.cli.output import counted, emit
from kandev_host.errors import StartupError
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

MARGIN_S = 5.0
TOLD_EVERY_S = 1.0
ASKED_S = 2.0


@click.command(epilog=example("kandev-host down\nkandev-host down --timeout 60 --json"))
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    metavar="SECONDS",
    help="Wait so long for its end [default: server.stop_timeout_s and 5 more].",
)
@settings_options
@as_json
def command(timeout: float | None, config: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Stop the host that runs on the data folder, and wait for its end.

    Its agents end with it, and what they did is kept. Where none runs there is nothing to do, which is no error. Exit
    status 1 if it has not ended in time: asked a second time it ends at once.
    """
    import anyio

    from kandev_host.presence import holder

    loaded = place(config, data_dir)
    limit_s = timeout if timeout is not None else loaded.settings.server.stop_timeout_s + MARGIN_S
    with holder(loaded.data_dir) as host:
        agents = anyio.run(_live_agents, loaded) if host is not None else None
        if host is None or not host.send(signal.SIGTERM):
            _told(as_json, None, f"No host runs on {loaded.data_dir}")
            return 0
        began = time.monotonic()
        ended = False
        while not ended and (left_s := limit_s - (time.monotonic() - began)) > 0:
            ended = host.ended(min(TOLD_EVERY_S, left_s))
            if not ended and sys.stderr.isatty():
                click.echo(f"stopping the host (pid {host.pid}), {time.monotonic() - began:.0f} s", err=True)
        if not ended:
            raise StartupError(
                f"the host (pid {host.pid}) has not ended within {limit_s:g} s; asked again it ends at once:"
                " kandev-host down"
            )
        took_s = time.monotonic() - began
        more = f", and {counted(agents, 'live agent')} with it" if agents else ""
        _told(as_json, host.pid, f"Stopped the host (pid {host.pid}) in {took_s:.1f} s{more}", agents)
    return 0


async def _live_agents(loaded: Loaded) -> int | None:
    """None where it does not say in time: it is stopped all the same."""
    import anyio

    from kandev_host.cli.access import running_client
    from kandev_host.client import ClientError

    if "KANDEV_URL" in os.environ:  # another one, perhaps
        return None
    with anyio.move_on_after(ASKED_S):
        try:
            async with running_client(loaded) as client:
                return len((await client.call("agent.list", {"status": "RUNNING"}))["agents"])
        except (StartupError, ClientError, OSError):
            return None
    return None


def _told(as_json: bool, pid: int | None, text: str, agents: int | None = None) -> None:
    if as_json:
        told: dict[str, Any] = {"stopped": pid is not None, "pid": pid, "live_agents": agents}
        emit(told)
    else:
        click.echo(printable(text))
