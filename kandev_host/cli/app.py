"""The group of subcommands, each imported when it is called, and the one place where errors become a line."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from kandev_host.errors import KandevError, StartupError
from kandev_host.printable import printable
from kandev_host.version import __version__

if TYPE_CHECKING:
    from kandev_host.client import ClientError

# Subcommand → what it is for: `--help` shows these without importing one of them.
COMMANDS = {
    "up": "Start the host and serve until Ctrl-C.",
    "down": "Stop the host that runs.",
    "reload": "Have the running host read its settings again.",
    "status": "How the running host is, in detail.",
    "run": "Give an agent one task, watch it work, see its diff.",
    "task": "Make, find, change, run and delete tasks.",
    "board": "Boards.",
    "column": "Columns of boards.",
    "agent": "Agents: which there are, which run; start, prompt, stop them.",
    "permission": "What agents ask for, and the answers.",
    "elicitation": "Forms and addresses that agents ask people for, and the answers.",
    "workspace": "The folders that agents work in: files, snapshots, and what they take.",
    "shell": "A terminal in a jail; the shells that are open, and what ran in them.",
    "exec": "Run a command in a jail.",
    "queue": "The tasks that start by themselves, and whether they do.",
    "events": "What happened, and with --follow what happens.",
    "search": "Search tasks, messages, logs and commands.",
    "usage": "What turns used and cost.",
    "host": "How the running host is.",
    "logs": "What the host logged, and with --follow what it logs.",
    "plugins": "List the plugins and what they provide.",
    "doctor": "Try runtimes, store and agents, and say how to fix them.",
    "config": "Show, write and check the settings.",
    "image": "Images for containers: build, list, pull and scan them.",
    "service": "Let systemd start the host, and start it again.",
    "schema": "Print the protocol as an AsyncAPI 3 document.",
    "backup": "Back the host's data up; the backups that there are.",
    "restore": "Put a backup in the place of the host's data.",
    "export": "Write boards, tasks and history as portable lines.",
    "import": "Read what export wrote.",
    "db": "Check and tidy the database.",
    "audit": "Who did what, and whether somebody changed that.",
    "token": "Show where the log-in token lies, or replace it.",
    "user": "Who may log in by name and password.",
    "key": "API keys, for programs.",
    "link": "A link to log in with in a browser, once.",
}
# Where a command is not the module of its name, which is a word of Python.
MODULES = {"import": "importing"}
CANCELLED = 130
SHOWN_PATHS = 5


class LazyGroup(click.Group):
    """Subcommand NAME is `command` of module `kandev_host.cli.NAME`, unless MODULES says otherwise."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"kandev_host.cli.{MODULES.get(cmd_name, cmd_name)}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


UNAUTHORIZED = 401
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
MAKE_ROOM = "make room on the disk, then try again; kandev-host doctor says how much is free"
ASK_OTHERWISE = "name one that holds in KANDEV_TOKEN: it expired or was revoked, or the host takes no local token"


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start here: kandev-host doctor, then kandev-host run 'Say hello' --agent demo --repo .",
)
@click.version_option(__version__, "-V", "--version", message="kandev-host %(version)s")
@click.option("--debug", is_flag=True, help="Show the whole trace of an unexpected error.")
def group(debug: bool) -> None:
    """Start any coding agent in a jail, watch it, steer it, count what it costs."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that is not UTF-8 shows an escape instead of a mark
            stream.reconfigure(errors="backslashreplace")
    try:
        # standalone_mode would print usage and exit by itself, in more than one line.
        return int(group.main(list(arguments), "kandev-host", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except (click.Abort, KeyboardInterrupt):
        return CANCELLED
    except Exception as error:  # the last place: every error is one line, and the trace is for who asks
        alone = _alone(error)
        if _is_a_closed_pipe(alone):
            from kandev_host.cli.output import silence

            silence()
            return 1
        message, status, expected = _explained(alone)
        if not expected and "--debug" in arguments:
            raise
        click.echo(f"kandev-host: {printable(' '.join(message.split()))}", err=True)
        return status


def _alone(error: BaseException) -> BaseException:
    """The error inside groups of one: task groups wrap what happens in them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _is_a_closed_pipe(error: BaseException) -> bool:
    """Alone, or what all tasks of a group met."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(BrokenPipeError)[1] is None
    return isinstance(error, BrokenPipeError)


def _is_an_answer(error: BaseException) -> TypeGuard[ClientError]:
    """The host said no. Asked only now, since the client is half of what a command takes to start."""
    from kandev_host.client import ClientError

    return isinstance(error, ClientError)


def _with_the_way_out(message: str, details: Mapping[str, Any]) -> str:
    """The message, with the known names or paths, the fix and what force does, as the error brings them."""
    known, fix, force = details.get("known"), details.get("fix"), details.get("force")
    if details.get("http_status") == UNAUTHORIZED:
        fix = ASK_OTHERWISE
    if fix is None and message == f"This needs the scope {details.get('scope')}":
        fix = _who_has(str(details["scope"]))
    more = f" (known: {', '.join(map(str, known))})" if isinstance(known, (list, tuple)) and known else ""
    paths = details.get("paths")
    if isinstance(paths, (list, tuple)) and paths:
        rest = f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else ""
        more += f" ({', '.join(map(str, paths[:SHOWN_PATHS]))}{rest})"
    more += f"; --force {force}" if force else ""
    return message + more + (f"{'' if message.endswith('.') and not more else '.'} Fix: {fix}" if fix else "")


def _who_has(scope: str) -> str:
    """What to do about a scope that one lacks."""
    from kandev_host.interfaces.roles import ROLES, scopes_of

    role = next(role for role in ROLES if {scope, "*"} & scopes_of(role))
    return (
        f"ask an administrator: users of the role {role} have it, and keys that such a user makes with --scope {scope}"
    )


def _explained(error: BaseException) -> tuple[str, int, bool]:
    """The line, the exit status, and whether this is an error that we know."""
    if isinstance(error, click.ClickException):
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "kandev-host"
        message = error.format_message()
        return f"{message}{'' if message.endswith(('.', '?', '!')) else '.'} See: {where} --help", error.exit_code, True
    if isinstance(error, StartupError):
        return str(error), 1, True
    if isinstance(error, KandevError) or _is_an_answer(error):
        more = {"fix": MAKE_ROOM} if error.code == "STORAGE_FULL" and "room" not in error.message else {}
        return _with_the_way_out(error.message, {**more, **error.details}), 1, True
    if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
        where = f" ({error.filename})" if error.filename else ""
        return f"The disk is full{where}. Fix: {MAKE_ROOM}", 1, True
    return f"unexpected {type(error).__name__}: {error} (add --debug for the trace)", 1, False
