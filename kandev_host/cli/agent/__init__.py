"""`kandev-host agent`."""

from __future__ import annotations

import click

from kandev_host.cli.agent.reading import list_agents, logs, status, transcript
from kandev_host.cli.agent.steering import cancel, launch, prompt, stop
from kandev_host.cli.agent.types import disable, enable, limit, types
from kandev_host.cli.options import example


@click.group(
    epilog=example(
        "kandev-host agent types\n"
        "kandev-host agent launch 0c9e6a41 --agent demo --prompt 'Look around'\n"
        "kandev-host agent logs 7b1d20f3"
    )
)
def command() -> None:
    """Agents: which there are, which run for tasks, what they say; start, prompt and stop them.

    AGENT and TASK are ids, or their endings as tables show them: the last 6 characters or more.
    """


for each in (types, list_agents, status, launch, prompt, cancel, stop, logs, transcript, enable, disable, limit):
    command.add_command(each)
