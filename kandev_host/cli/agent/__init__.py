"""`kandev-host agent`."""

from __future__ import annotations

import click

from kandev_host.cli.agent.attach import attach
from kandev_host.cli.agent.in_session import login, logout, options, options_default, session
from kandev_host.cli.agent.queue import queue, queue_edit, queue_remove
from kandev_host.cli.agent.reading import list_agents, log, status, transcript
from kandev_host.cli.agent.session_list import session_delete, sessions
from kandev_host.cli.agent.steering import cancel, launch, prompt, resume, stop
from kandev_host.cli.agent.types import disable, enable, limit, types
from kandev_host.cli.options import example


@click.group(
    epilog=example(
        "kandev-host agent types\n"
        "kandev-host agent launch 0c9e6a41 --agent demo --prompt 'Look around'\n"
        "kandev-host agent log 7b1d20f3"
    )
)
def command() -> None:
    """Agents: which there are, which run for tasks, what they say; start, prompt and stop them.

    AGENT and TASK are ids, or their endings as tables show them: the last 6 characters or more.
    """


READING = (types, list_agents, status, log, transcript)
STEERING = (launch, prompt, attach, cancel, stop, resume)
QUEUE = (queue, queue_edit, queue_remove)
SESSIONS = (session, options, login, logout, sessions, session_delete)
for each in (*READING, *STEERING, *QUEUE, *SESSIONS, enable, disable, limit, options_default):
    command.add_command(each)
