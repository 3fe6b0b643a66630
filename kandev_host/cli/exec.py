"""`kandev-host exec`."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json as json_option
from kandev_host.cli.options import example, load_settings, settings_options
from kandev_host.cli.shell.choices import Choices, where_options

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

CLOSE_S = 15.0


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=example(
        "kandev-host exec -- uname -a\n"
        "kandev-host exec --task 0c9e6a41 --timeout 600 -- make test\n"
        "kandev-host exec --task 0c9e6a41 'cd src && ls | wc -l'\n"
        "Exit status: the command's own; 124 when it took too long, 1 and 2 when it could not be run."
    ),
)
@click.argument("words", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=3600.0,
    show_default=True,
    help="Kill it after so many seconds.",
)
@where_options
@settings_options
@json_option
def command(
    words: tuple[str, ...],
    timeout_s: float,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
    **where: Any,
) -> int:
    """Run a command in the jail of a task's workspace, or of a scratch one.

    One word is a script for /bin/sh; several are a command with its arguments. Its output comes as it is written, its
    input is empty. Ctrl-C goes to the command; a second one gives it up. The running host is used, or one is started
    for the time. Without --task it runs in a scratch workspace that is removed at the end.
    """
    import anyio

    script = words[0] if len(words) == 1 else shlex.join(words)
    if not script.strip():
        raise click.UsageError("The command is empty.")
    status = anyio.run(_exec, load_settings(config, data_dir), Choices.of(where), script, timeout_s, as_json)
    # All is done and said: one more Ctrl-C would only tear a trace into the end of Python.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return status


async def _exec(loaded: Loaded, choices: Choices, script: str, timeout_s: float, as_json: bool) -> int:
    import anyio

    from kandev_host.cli.access import open_client
    from kandev_host.cli.asking import Remote
    from kandev_host.cli.shell.running import Running
    from kandev_host.logs import logging_to

    with logging_to(loaded.settings.log):
        async with open_client(loaded, runs=True) as (client, _url):
            remote = Remote(client, as_json=as_json)
            shell = await choices.open(remote, attached=True)
            try:
                return await Running(remote, shell["id"]).run(script, timeout_s, None)
            finally:
                with anyio.move_on_after(CLOSE_S, shield=True):
                    await client.call("shell.close", {"shell_id": shell["id"]})
