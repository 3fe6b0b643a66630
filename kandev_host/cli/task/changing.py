"""`kandev-host task create`, `update`, `move`, `state` and `delete`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, confirm, given, version_option, yes_option
from kandev_host.cli.ids import find, find_all, find_given, only_board
from kandev_host.cli.inputs import json_of, repository, text_of
from kandev_host.cli.options import example, states
from kandev_host.cli.output import counted, done, removed
from kandev_host.printable import printable

END = 1_000_000
LOOK_S = 5.0
_CLEARED: Mapping[str, Any] = {
    "agent": None,
    "repo": None,
    "branch": None,
    "blocked-by": [],
    "mcp": [],
    "directory": [],
    "credential": [],
    "allow": [],
    "metadata": {},
}
_FIELDS = {
    "agent": "agent_type", "repo": "repository_url", "blocked-by": "blocked_by", "mcp": "mcp_servers",
    "directory": "directories", "credential": "credentials",
}  # fmt: skip
_priority = click.option("--priority", type=click.IntRange(0, 10), metavar="N", help="From 0 to 10, the most urgent.")
_agent = click.option("--agent", "agent_type", help="Agent type; see: kandev-host agent types")
_repo = click.option("--repo", metavar="PATH|URL", help="Repository that its agents get a clone of.")
_branch = click.option("--branch", help="Branch to start from.")
_blocked_by = click.option("--blocked-by", metavar="TASK", multiple=True, help="Wait for this task; repeatable.")
_mcp = click.option(
    "--mcp", metavar="NAME", multiple=True, help="Give its agents this MCP server of the settings; repeatable."
)
_directory = click.option(
    "--directory", metavar="NAME", multiple=True, help="Show its agents this folder of the settings; repeatable."
)
_credential = click.option(
    "--credential",
    metavar="NAME",
    multiple=True,
    help="Let its agents use this credential of the settings; repeatable.",
)
_allow = click.option(
    "--allow",
    metavar="ENTRY",
    multiple=True,
    help="Let its agents reach this: pypi.org, *.example.org, name:port, 127.0.0.1:PORT or @preset; repeatable.",
)
_metadata = click.option("--metadata", metavar="JSON", help="An object of your own.")
_description = click.option("--description", metavar="TEXT", help="What is to be done; - reads it from standard input.")


async def _payload(remote: Remote, options: dict[str, Any]) -> dict[str, Any]:
    """The fields that creating and updating share, as the protocol has them."""
    repo, description = options.pop("repo"), options.pop("description")
    metadata, blocked_by = options.pop("metadata"), options.pop("blocked_by")
    mcp, directories, allow = options.pop("mcp"), options.pop("directory"), options.pop("allow")
    credentials = options.pop("credential")
    return given(
        repository_url=repo and repository(repo),
        description=None if description is None else text_of(description, "description", may_be_empty=True),
        metadata=metadata and json_of(metadata, "--metadata"),
        blocked_by=await find_all(remote, "task", blocked_by),
        mcp_servers=list(mcp) or None,
        directories=list(directories) or None,
        credentials=list(credentials) or None,
        allow=list(allow) or None,
        **options,
    )


@click.command(
    epilog=example(
        "kandev-host task create 'Fix the log-in' --repo ~/src/app --agent demo --priority 5\n"
        "kandev-host task create 'A long story' --description - < story.txt\n"
        "kandev-host task create 'Go through the tickets' --agent demo --mcp tickets --directory handbook\n"
        "kandev-host task create 'Fix it and push' --repo https://example.org/app --agent claude --credential push\n"
        "kandev-host task create 'Update the packages' --agent claude --allow @npm --allow git.example.org\n"
        "id=$(kandev-host task create 'Fix it' --json | jq -r .task.id)"
    )
)
@click.argument("title")
@click.option("--board", help="The board [default: the only one].")
@click.option("--column", help="The column [default: that of its state].")
@_description
@_priority
@_agent
@_repo
@_branch
@_blocked_by
@_mcp
@_directory
@_credential
@_allow
@_metadata
@asking
async def create(remote: Remote, title: str, board: str | None, column: str | None, **options: Any) -> None:
    """A new task.

    With --agent it is run as soon as there is room, unless orchestrator.auto_start is off: see kandev-host queue.
    """
    board_id = await only_board(remote, board)
    column_id = await find_given(remote, "column", column, board_id=board_id)
    payload = {"description": "", **await _payload(remote, options)}
    reply = await remote.call("task.create", payload, board_id=board_id, column_id=column_id, title=title)
    remote.show(reply, lambda: done("Created task", reply["task"]["id"], reply["task"]["title"]))
    if reply["task"]["agent_type"] is not None:
        await _tell_if_it_waits(remote, reply["task"]["agent_type"])


async def _tell_if_it_waits(remote: Remote, agent_type: str) -> None:
    """For an agent that cannot be started here. Whoever may not look, or looks for long, is told nothing."""
    import anyio

    from kandev_host.client import ClientError

    types: list[dict[str, Any]] = []
    with suppress(ClientError), anyio.move_on_after(LOOK_S):
        types = (await remote.call("agent.types"))["agent_types"]
    for kind in types:
        found = kind["availability"]
        if kind["name"] == agent_type and not found["ok"]:
            told = f"The task waits, since the agent {agent_type} cannot be started here: {found['reason']}"
            fix = f"{'' if told.endswith('.') else '.'} Fix: {found['fix']}" if found["fix"] else ""
            click.echo(printable(told + fix), err=True)


@click.command(
    epilog=example(
        "kandev-host task update 0c9e6a41 --priority 9 --title 'Fix the log-in now'\n"
        "kandev-host task update 0c9e6a41 --clear agent --clear blocked-by"
    )
)
@click.argument("task")
@click.option("--title")
@_description
@_priority
@_agent
@_repo
@_branch
@_blocked_by
@_mcp
@_directory
@_credential
@_allow
@_metadata
@click.option("--clear", type=click.Choice(list(_CLEARED)), multiple=True, help="Empty this field; repeatable.")
@version_option
@asking
async def update(
    remote: Remote, task: str, clear: tuple[str, ...], expected_version: int | None, **options: Any
) -> None:
    """Change fields of a task. --blocked-by, --mcp, --directory, --credential, --allow and --metadata replace
    what there was.

    To add to what its agents may reach: kandev-host task allow.
    """
    changes = await _payload(remote, options)
    changes |= {_FIELDS.get(name, name): _CLEARED[name] for name in clear}
    task_id = await find(remote, "task", task)
    reply = await remote.call("task.update", {"task_id": task_id, **changes}, expected_version=expected_version)
    remote.show(reply, lambda: done("Changed task", reply["task"]["id"], reply["task"]["title"]))


@click.command(
    epilog=example("kandev-host task move 0c9e6a41 Done\nkandev-host task move 0c9e6a41 Review --position 0")
)
@click.argument("task")
@click.argument("column")
@click.option("--position", type=click.IntRange(0), metavar="N", help="Where, from 0 [default: at the end].")
@version_option
@asking
async def move(remote: Remote, task: str, column: str, position: int | None, expected_version: int | None) -> None:
    """Put a task into a column. A column that stands for a state changes the task's state."""
    task_id = await find(remote, "task", task)
    board_id = (await remote.call("task.get", task_id=task_id))["task"]["board_id"]
    reply = await remote.call(
        "task.move",
        task_id=task_id,
        column_id=await find(remote, "column", column, board_id=board_id),
        position=END if position is None else position,
        expected_version=expected_version,
    )
    remote.show(reply, lambda: _moved(reply["task"]))


@click.command(epilog=example("kandev-host task state 0c9e6a41 blocked --reason 'Wait for the design'"))
@click.argument("task")
@click.argument("state", type=states)
@click.option("--reason", help="Why, for other people.")
@version_option
@asking
async def state(remote: Remote, task: str, state: str, **options: Any) -> None:
    """Change a task's state."""
    reply = await remote.call("task.state", task_id=await find(remote, "task", task), state=state, **options)
    remote.show(reply, lambda: _moved(reply["task"]))


@click.command(epilog=example("kandev-host task delete 0c9e6a41\nkandev-host task delete 0c9e6a41 --force --yes"))
@click.argument("task")
@click.option(
    "--force",
    is_flag=True,
    help="Also with a running agent, which is stopped first, or with work that is nowhere else, which is lost.",
)
@yes_option
@version_option
@asking
async def delete(remote: Remote, task: str, force: bool, yes: bool, expected_version: int | None) -> None:
    """Delete a task, with its agents' records and its workspace, for good.

    At a terminal it says what goes with the task, and asks. With a running agent, or with files or
    commits in its workspace that are nowhere else, the host refuses, unless --force.
    """
    task_id = await find(remote, "task", task)
    if not yes:
        title = (await remote.call("task.get", task_id=task_id))["task"]["title"]
        page = await remote.call("agent.list", task_id=task_id, limit=500)
        runs = counted(len(page["agents"]), "run", more=page["next_cursor"] is not None)
        confirm(f"Delete task {title}, with {runs} of an agent and its workspace?", yes=yes)
    reply = await remote.call("task.delete", task_id=task_id, force=force, expected_version=expected_version)
    remote.show(reply, lambda: done("Deleted task", task_id, removed(reply)))


def _moved(task: dict[str, Any]) -> None:
    done("Task", task["id"], f"{task['state']}, {task['title']}")
