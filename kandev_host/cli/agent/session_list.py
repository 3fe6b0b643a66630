"""`kandev-host agent sessions` and `session-delete`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import LEAST_CHARS, find_given, is_id, short
from kandev_host.cli.options import example
from kandev_host.cli.output import done, table
from kandev_host.cli.shown import moment, text

PAGE = 500


@click.command(
    epilog=example(
        "kandev-host agent sessions\n"
        "kandev-host agent sessions --agent opencode\n"
        "kandev-host agent sessions --agent 7b1d20f3 --all"
    )
)
@click.option("--agent", metavar="TYPE|AGENT", help="Only those of this agent type, or of this agent.")
@paged
@asking
async def sessions(remote: Remote, agent: str | None, **paging: Any) -> None:
    """Sessions of agents, newest first. A live agent is asked for those that it knows of itself."""
    kind = agent if agent is not None and await _is_type(remote, agent) else None
    agent_id = await find_given(remote, "agent", agent) if kind is None else None
    await remote.pages("agent.sessions", "sessions", _table, paging, agent_id=agent_id, agent_type=kind)


@click.command(
    "session-delete",
    epilog=example(
        "kandev-host agent session-delete 51c0aa42\nkandev-host agent session-delete ses_9fK2 --agent 7b1d20f3"
    ),
)
@click.argument("session")
@click.option("--agent", help="A live agent; SESSION may then be its own name of one.")
@asking
async def session_delete(remote: Remote, session: str, agent: str | None) -> None:
    """Have a session forgotten: nothing goes on with it any more, and an agent that can is asked to delete it."""
    agent_id = await find_given(remote, "agent", agent)
    session_id = session if agent_id is not None else await _find(remote, session)
    reply = await remote.call("agent.session_delete", session_id=session_id, agent_id=agent_id)
    told = "by its agent as well" if reply["deleted_by_agent"] else "by the host; what its agent kept is still there"
    remote.show(reply, lambda: done("Deleted session", session_id, told))


async def _is_type(remote: Remote, text: str) -> bool:
    return any(kind["name"] == text for kind in (await remote.call("agent.types"))["agent_types"])


async def _find(remote: Remote, text: str) -> str:
    """The id of the session that `text` stands for. Raises `UsageError` for none, or for several."""
    wanted = text.strip().lower()
    if is_id(wanted):
        return wanted
    if len(wanted) < LEAST_CHARS:
        raise click.UsageError(f"{text!r} is no session id: give all of it, or its last {LEAST_CHARS} characters.")
    found, cursor = [], None
    while True:
        page = await remote.call("agent.sessions", limit=PAGE, cursor=cursor)
        found += [row["session_id"] for row in page["sessions"] if row["session_id"].endswith(wanted)]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if len(found) != 1:
        raise click.UsageError(f"{text!r} stands for {len(found) or 'no'} sessions; give the whole id.")
    return str(found[0])


def _table(rows: Iterable[Mapping[str, Any]]) -> None:
    table(
        ["ID", "AGENT", "TASK", "STATE", "CREATED", "NAME OF THE AGENT'S", "TITLE"],
        (
            [
                short(row["session_id"]),
                short(row["agent_id"]),
                short(row["task_id"]),
                _state(row),
                moment(row["created_at"] or row["updated_at"]),
                row["acp_session_id"],
                text(row["title"]),
            ]
            for row in rows
        ),
    )


def _state(row: Mapping[str, Any]) -> str:
    if row["deleted_at"] is not None:
        return "deleted"
    return "open" if row["live"] else text(row["resumable"])
