"""`kandev-host agent session`, `options`, `login`, `logout` and `options-default`."""

from __future__ import annotations

from typing import Any

import click

from kandev_host.cli.asking import Remote, asking
from kandev_host.cli.ids import find, short
from kandev_host.cli.options import example
from kandev_host.cli.output import done, fields, hints, table
from kandev_host.printable import printable

LOGIN_S = 660.0  # a log-in may wait for a person in a browser; the host gives up before


@click.command(epilog=example("kandev-host agent session 7b1d20f3\nkandev-host agent session 7b1d20f3 --json"))
@click.argument("agent")
@asking
async def session(remote: Remote, agent: str) -> None:
    """What an agent's session is: how it was opened, what can be set in it, how to log in."""
    reply = await remote.call("agent.session", agent_id=await find(remote, "agent", agent))

    def plain() -> None:
        row, how = reply["session"] or {}, reply["resumable"] or {}
        shown = [(name, row.get(name)) for name in ("id", "acp_session_id", "title", "opened", "cwd", "closed_at")]
        options = {option["id"]: option["current_value"] for option in reply["options"]}
        commands = [command.get("name") for command in reply["commands"]]
        shown += [("resumable", how.get("reason")), ("options", options or None), ("commands", commands or None)]
        fields([*shown, ("login", reply["login"])])
        _methods(reply)

    remote.show(reply, plain)


@click.command(
    epilog=example(
        "kandev-host agent options 7b1d20f3\n"
        "kandev-host agent options 7b1d20f3 model opus\n"
        "kandev-host agent options 7b1d20f3 mode plan"
    )
)
@click.argument("agent")
@click.argument("option", required=False)
@click.argument("value", required=False)
@asking
async def options(remote: Remote, agent: str, option: str | None, value: str | None) -> None:
    """Show what can be set in an agent's session, or set it.

    OPTION is an id, or a category such as model or mode. VALUE of a boolean option is true or false.
    """
    if option is not None and value is None:
        raise click.UsageError("Give OPTION a VALUE; without both, what can be set is shown.")
    agent_id = await find(remote, "agent", agent)
    if option is None:
        found = (await remote.call("agent.session", agent_id=agent_id))["options"]
    else:
        found = (await remote.call("agent.set_option", agent_id=agent_id, option_id=option, value=value))["options"]
    remote.show({"options": found}, lambda: _options(found))


@click.command(epilog=example("kandev-host agent login 7b1d20f3\nkandev-host agent login 7b1d20f3 api-key"))
@click.argument("agent")
@click.argument("method", required=False)
@asking
async def login(remote: Remote, agent: str, method: str | None) -> None:
    """Log an agent in by one of its own methods; without METHOD, show how it can be done."""
    agent_id = await find(remote, "agent", agent)
    if method is None:
        found = await remote.call("agent.session", agent_id=agent_id)
        told = {"login": found["login"], "auth_methods": found["auth_methods"]}
        remote.show(told, lambda: _logins(found))
        return
    payload = {"agent_id": agent_id, "method_id": method}
    reply = await remote.client.call("agent.authenticate", payload, timeout_s=LOGIN_S)
    remote.show(reply, lambda: done("Logged in agent", short(agent_id), ""))


@click.command(epilog=example("kandev-host agent logout 7b1d20f3"))
@click.argument("agent")
@asking
async def logout(remote: Remote, agent: str) -> None:
    """Log an agent out, if it offers that."""
    agent_id = await find(remote, "agent", agent)
    reply = await remote.call("agent.logout", agent_id=agent_id)
    remote.show(reply, lambda: done("Logged out agent", short(agent_id), ""))


@click.command(
    "options-default",
    epilog=example(
        "kandev-host agent options-default claude model=opus\n"
        "kandev-host agent options-default claude mode=plan fast=true"
    ),
)
@click.argument("name")
@click.argument("given", nargs=-1, metavar="[OPTION=VALUE]...")
@asking
async def options_default(remote: Remote, name: str, given: tuple[str, ...]) -> None:
    """Set options of every new session of an agent, all of them at once; without any, as its plugin says.

    OPTION is an id, or a category such as model or mode.
    """
    pairs = [item.partition("=") for item in given]
    if any(not (option and value) for option, _, value in pairs):
        raise click.UsageError("Write each as OPTION=VALUE, as in model=opus.")
    wanted = {option: value for option, _, value in pairs} or None
    reply = await remote.call("agent.type_update", {"name": name, "default_options": wanted})
    told = ", ".join(f"{option}={value}" for option, value in reply["agent_type"]["default_options"].items())
    remote.show(reply, lambda: click.echo(printable(f"Agent {name}: options of new sessions: {told or 'none'}")))


def _options(found: list[dict[str, Any]]) -> None:
    table(
        ["OPTION", "CATEGORY", "VALUE", "CHOICES"],
        (
            [
                option["id"],
                option["category"] or "",
                _shown(option["current_value"]),
                " ".join(choice["value"] for choice in option["choices"]) or "true false",
            ]
            for option in found
        ),
    )


def _logins(reply: dict[str, Any]) -> None:
    fields([("login", reply["login"] or "not needed now")])
    _methods(reply)


def _methods(reply: dict[str, Any]) -> None:
    hints((f"{method['name']} ({method['id']})", method["fix"]) for method in reply["auth_methods"])


def _shown(value: str | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else value or "-"
