"""`kandev-host agent attach`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kandev_host.cli.options import as_json as json_option
from kandev_host.cli.options import example, load_settings, settings_options

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded


@click.command(
    epilog=example(
        "kandev-host agent attach 7b1d20f3\necho 'Also update the README' | kandev-host agent attach 7b1d20f3"
    )
)
@click.argument("agent")
@settings_options
@json_option
def attach(agent: str, config: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Watch an agent that runs, talk to it, answer what it asks.

    First what it said, then what it says. A line typed is a prompt; /cancel, /queue, /option ID VALUE, /stop and
    /detach do as they say. Ctrl-C cancels the turn; a second one, or Ctrl-D, detaches: the agent goes on. A host that
    goes away is waited for.
    """
    import anyio

    reached = anyio.run(_attach, load_settings(config, data_dir), agent, as_json)
    # All is done and said: one more Ctrl-C would only tear a trace into the end of Python.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0 if reached else 1


async def _attach(loaded: Loaded, agent: str, as_json: bool) -> bool:
    from kandev_host.cli.access import moving_host, running_client
    from kandev_host.cli.asking import Remote
    from kandev_host.cli.ids import find
    from kandev_host.cli.output import console
    from kandev_host.cli.running.ask import Asker
    from kandev_host.cli.running.attached import Attached
    from kandev_host.cli.running.keyboard import Keyboard
    from kandev_host.cli.running.outage import Outage
    from kandev_host.cli.running.view import JsonView, TerminalView
    from kandev_host.client import Backoff, ReconnectingClient

    async with running_client(loaded) as client:
        agent_id = await find(Remote(client, as_json=False), "agent", agent)
    view = JsonView() if as_json else TerminalView(console())
    asker = Asker(console(stderr=as_json), interactive=os.isatty(0))
    outage = Outage(view.note)
    where, token = moving_host(loaded)
    patient = Backoff(give_up_s=float("inf"))
    async with ReconnectingClient(where, token, backoff=patient, on_lost=outage.begins, on_back=outage.ends) as there:
        reached = await Attached(there, agent_id, view, asker, Keyboard()).run()
    if isinstance(view, TerminalView):
        view.end()
    return reached
