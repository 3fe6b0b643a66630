"""`kandev-host up`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.leaving import Leaving
from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit
from kandev_host.errors import StartupError
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.host import Host
    from kandev_host.settings.load import Loaded

SWITCH_S = 0.001  # Python's own 5 ms cost a flooding agent a tenth of its events, or more


@click.command(
    epilog=example(
        "kandev-host up\nkandev-host up --port 0 --json\nkandev-host up --unix ~/.kandev/host.sock\n"
        "KANDEV_LOG__FORMAT=json kandev-host up"
    )
)
@click.option("--host", "address", metavar="ADDRESS", help="Address to listen on [default: 127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one [default: 8080].")
@click.option("--unix", metavar="PATH", help="Listen on a Unix socket instead, for this user alone.")
@click.option(
    "--allow-remote",
    is_flag=True,
    default=None,
    help="Listen on other than loopback; needs TLS and authentication made for it.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How the log is written [default: text].")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least level [default: info]."
)
@settings_options
@as_json
def command(
    address: str | None,
    port: int | None,
    unix: str | None,
    allow_remote: bool | None,
    log_format: str | None,
    log_level: str | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Start the host and serve until Ctrl-C.

    Prints where it listens, where the log-in token lies, and what can be started here. With --json, one line for
    programs, once it serves.
    """
    loaded = load_settings(
        config,
        data_dir,
        server__host=address,
        server__port=port,
        server__unix_socket=os.path.abspath(os.path.expanduser(unix)) if unix is not None else None,
        server__allow_remote=allow_remote,
        log__format=log_format,
        log__level=log_level,
    )
    import anyio

    from kandev_host.logs import logging_to

    with logging_to(loaded.settings.log):
        leaving = Leaving()
        try:
            anyio.run(_serve, loaded, as_json, leaving)
        finally:
            leaving.told()


async def _serve(loaded: Loaded, as_json: bool, leaving: Leaving) -> None:
    import anyio

    from kandev_host.host import Host

    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(_watch_signals, stop)
        try:
            async with Host(loaded.settings, loaded.data_dir) as host:
                # What stands now stays: the collector need not go through it again each time.
                gc.freeze()
                # Beside a busy loop the store's thread waits so long for the interpreter after each step of SQLite.
                sys.setswitchinterval(SWITCH_S)
                if as_json:
                    emit_line(host)
                else:
                    await _print(host)
                await stop.wait()
        except StartupError as error:
            leaving.begin(1, str(error))
            raise
        leaving.begin()
        group.cancel_scope.cancel()


async def _watch_signals(stop: Any) -> None:
    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if stop.is_set():
                # Asked twice: agents die with this process, and the journal holds what was acknowledged.
                os._exit(1)
            stop.set()


def emit_line(host: Host) -> None:
    """One line of JSON, at once: whoever started us waits for it."""
    ready = {"url": host.url, "token_path": str(host.token_path), "pid": os.getpid(), "recovered": host.recovered}
    emit(ready)


async def _print(host: Host) -> None:
    from kandev_host.gateway.tokens import LOCAL_USER
    from kandev_host.protocol.actions.agents import AgentTypes
    from kandev_host.services.recovery import told

    _line("listens", click.style(host.url, bold=True))
    _line("token", str(host.token_path))
    if host.url.startswith("http"):
        _line("browser", "kandev-host link")
    for name, runtime in host.services.runtimes.items():
        found = await runtime.probe()
        _line("runtime", f"{name}: {'ready' if found.ok else f'unavailable: {found.reason}'}")
        if found.fix:
            _line("", f"fix: {found.fix}")
    types = (await host.services.agent_types.list(LOCAL_USER, AgentTypes())).agent_types
    ready = [kind.name for kind in types if kind.availability.ok]
    more = f" ({len(types) - len(ready)} more; see: kandev-host agent types)" if len(ready) < len(types) else ""
    _line("agents", (", ".join(ready) or "none") + more)
    left = {name: value for name, value in host.recovered.items() if value}
    if left:
        _line("found", f"a host that died: {told(left)}")
    _line("next", "kandev-host run 'write HELLO.md: hello' --agent demo --repo PATH")
    click.echo("Ctrl-C stops it.")


def _line(name: str, text: str) -> None:
    click.echo(f"{name:9} {printable(text) if name != 'listens' else text}")
