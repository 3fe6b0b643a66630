"""`kandev-host user`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, confirm, given, paged, yes_option
from kandev_host.cli.options import example
from kandev_host.cli.output import counted, done, table
from kandev_host.cli.shown import moment
from kandev_host.errors import StartupError

LIMIT_CHARS = 1024
TWO_LINES = "give two lines, the current password and then the new one"
roles = click.Choice(["viewer", "member", "admin"])
stdin_option = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@click.group(
    epilog=example(
        "kandev-host user add ada --role admin\nkandev-host user list\nkandev-host user set ada --role member\n"
        "kandev-host user set ada --disable\nkandev-host user password ada"
    )
)
def command() -> None:
    """Who may log in by name and password. Needs the authenticator "users"; USER is a name or an id."""


async def ask(remote: Remote, action: str, payload: dict[str, Any]) -> Any:
    """As `remote.call`, `needing_users`."""
    with needing_users():
        return await remote.call(action, payload)


@contextmanager
def needing_users() -> Iterator[None]:
    """Of a host without users the error says how to have some."""
    from kandev_host.client import ClientError

    try:
        yield
    except ClientError as error:
        if error.code != "UNKNOWN_ACTION":
            raise
        raise StartupError(
            'this host knows no users: set [use] authenticator = "users" in config.toml, and start it anew'
        ) from None


def password_of(prompt: str, *, stdin: bool, again: bool = False, how: str = "give it as a line") -> str:
    """From standard input (a line), or asked for on the terminal. Never from the command line, which others see."""
    if stdin:
        line = sys.stdin.readline(LIMIT_CHARS + 2).rstrip("\n")
        if not line:
            raise click.UsageError(f"There is no {prompt[:1].lower()}{prompt[1:]} on standard input: {how}")
        return line
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody can be asked for a password here: give it with --password-stdin")
    found: str = click.prompt(prompt, hide_input=True, confirmation_prompt=again, err=True)
    return found


@command.command(
    epilog=example(
        'kandev-host user add ada --role admin\nprintf %s "$PASSWORD" | kandev-host user add bob --password-stdin\n'
        "kandev-host user add carol --no-password"
    )
)
@click.argument("name")
@click.option("--role", type=roles, default="member", show_default=True, help="What they may.")
@click.option("--no-password", is_flag=True, help="Only a token of the other issuer lets them in.")
@stdin_option
@asking
async def add(remote: Remote, name: str, role: str, no_password: bool, password_stdin: bool) -> None:
    """A new user. The password is asked for; it has 12 characters or more."""
    password = None if no_password else password_of(f"Password of {name}", stdin=password_stdin, again=True)
    reply = await ask(remote, "user.create", {"name": name, "role": role, "password": password})
    remote.show(reply, lambda: done("Created user", reply["user"]["name"], reply["user"]["role"]))


@command.command("list", epilog=example("kandev-host user list\nkandev-host user list --json | jq -r '.users[].name'"))
@paged
@asking
async def list_users(remote: Remote, **paging: Any) -> None:
    """All users."""

    def plain(users: list[dict[str, Any]]) -> None:
        table(
            ["NAME", "ROLE", "STATE", "PASSWORD", "CREATED", "ID"],
            (
                [
                    user["name"],
                    user["role"],
                    "disabled" if user["disabled"] else "active",
                    "yes" if user["has_password"] else "no",
                    moment(user["created_at"]),
                    user["id"],
                ]
                for user in users
            ),
        )

    with needing_users():
        await remote.pages("user.list", "users", plain, paging)


@command.command("set", epilog=example("kandev-host user set ada --role viewer\nkandev-host user set ada --disable"))
@click.argument("user")
@click.option("--role", type=roles, help="What they may from now on.")
@click.option("--disable/--enable", "disabled", default=None, help="May they log in no more, or again?")
@asking
async def change(remote: Remote, user: str, role: str | None, disabled: bool | None) -> None:
    """Change a user. Ends all that they are logged in with; keys that are too wide get narrower."""
    if role is None and disabled is None:
        raise click.UsageError("There is nothing to change: give --role, --disable or --enable")
    reply = await ask(remote, "user.update", {"user": user, **given(role=role, disabled=disabled)})
    state = "disabled" if reply["user"]["disabled"] else reply["user"]["role"]
    remote.show(reply, lambda: done("Changed user", reply["user"]["name"], state))


@command.command(
    epilog=example(
        "KANDEV_TOKEN=$MINE kandev-host user password\nkandev-host user password ada\n"
        'printf %s "$PASSWORD" | kandev-host user password ada --password-stdin\n'
        'printf "%s\\n" "$OLD" "$NEW" | kandev-host user password --password-stdin'
    )
)
@click.argument("user", required=False)
@stdin_option
@asking
async def password(remote: Remote, user: str | None, password_stdin: bool) -> None:
    """Change the password of a user, or, without USER, your own: then the current one comes first.

    All that was logged in with the old one ends. On standard input each password is a line.
    """
    if user is None:
        if "KANDEV_TOKEN" not in os.environ:
            raise click.UsageError(
                "The local token has no password: name USER, or log in as yourself, with KANDEV_TOKEN"
            )
        current = password_of("Current password", stdin=password_stdin, how=TWO_LINES)
        fresh = password_of("New password", stdin=password_stdin, again=True, how=TWO_LINES)
        reply = await ask(remote, "user.password", {"current_password": current, "password": fresh})
    else:
        fresh = password_of(f"New password of {user}", stdin=password_stdin, again=True)
        reply = await ask(remote, "user.update", {"user": user, "password": fresh})
    remote.show(reply, lambda: done("Changed the password of", reply["user"]["name"], ""))


@command.command(epilog=example("kandev-host user remove bob\nkandev-host user remove bob --yes"))
@click.argument("user")
@yes_option
@asking
async def remove(remote: Remote, user: str, yes: bool) -> None:
    """Delete a user with all keys. What they made stays."""
    confirm(f"Delete the user {user} with all keys?", yes=yes)
    reply = await ask(remote, "user.delete", {"user": user})
    keys = counted(reply["removed"]["keys"], "key")
    remote.show(reply, lambda: done("Deleted user", reply["user"]["name"], keys))
