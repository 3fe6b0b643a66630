"""`kandev-host shell`."""

from __future__ import annotations

from pathlib import Path

import click

from kandev_host.cli.options import example, load_settings, settings_options
from kandev_host.cli.shell.acting import attach, close, input_, open_, resize, run, signal
from kandev_host.cli.shell.choices import Choices, where_options
from kandev_host.cli.shell.looking import commands, jobs, list_shells, log


@click.group(
    invoke_without_command=True,
    epilog=example(
        "kandev-host shell\n"
        "kandev-host shell --task 0c9e6a41\n"
        "kandev-host shell --network allowlist --allow @pypi\n"
        "kandev-host shell list"
    ),
)
@where_options
@settings_options
def command(config: Path | None, data_dir: Path | None, **where: object) -> int | None:
    """A terminal in the jail of a task's workspace, or of a scratch one; and the shells that are open.

    Without a subcommand it opens one here: everything typed goes there, also Ctrl-C. `exit` or Ctrl-D ends it; Enter
    and then ~. leaves it, which ends it too. Without --task it is in a scratch workspace that is removed at the end.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return None
    import anyio

    from kandev_host.cli.shell.interactive import open_here

    return anyio.run(open_here, load_settings(config, data_dir), Choices.of(where))


for each in (open_, attach, run, list_shells, commands, jobs, log, signal, input_, resize, close):
    command.add_command(each)
