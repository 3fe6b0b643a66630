"""`kandev-host up`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kandev_host.cli.leaving import Leaving
from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.host import Host
    from kandev_host.settings.load import Loaded


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
    programs, once it serves. SIGTERM or Ctrl-C stops it, a second one at once; SIGHUP has it read its settings again.
    """
    from kandev_host.service_manager import ServiceManager

    manager = ServiceManager.of()

    def read() -> Loaded:
        return load_settings(
            config,
            data_dir,
            server__host=address,
            server__port=port,
            server__unix_socket=os.path.abspath(os.path.expanduser(unix)) if unix is not None else None,
            server__allow_remote=allow_remote,
            log__format=log_format,
            log__level=log_level,
        )

    loaded = read()
    import anyio

    from kandev_host.cli.serving import serve
    from kandev_host.logs import logging_to

    async def stands(host: Host) -> None:
        if as_json:
            emit_line(host)
        else:
            await _print(host)

    with logging_to(loaded.settings.log, serving=True):
        leaving = Leaving()
        try:
            anyio.run(serve, loaded, read, stands, manager, leaving)
        finally:
            leaving.told()


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
    if host.services.recovery.left:
        _line("found", f"a host that died: {told(host.services.recovery.left)}")
    _line("next", "kandev-host run 'write HELLO.md: hello' --agent demo --repo PATH")
    click.echo("Ctrl-C stops it.")


def _line(name: str, text: str) -> None:
    click.echo(f"{name:9} {printable(text) if name != 'listens' else text}")
