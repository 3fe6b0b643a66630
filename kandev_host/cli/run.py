"""`kandev-host run`."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kandev_host.cli.inputs import repository, text_of
from kandev_host.cli.options import as_json, example, load_settings, settings_options

if TYPE_CHECKING:
    from kandev_host.cli.running.conversation import Order
    from kandev_host.cli.running.outcome import Outcome
    from kandev_host.settings.load import Loaded

TITLE_CHARS = 80


@click.command(
    epilog=example(
        """\
kandev-host run "Add a test for the parser" --agent demo --repo .
kandev-host run "Fix the login bug" --agent opencode --repo https://example.org/app.git --branch main
kandev-host run "Update the packages" --agent claude --repo . --allow @npm --allow git.example.org
kandev-host run - --agent demo --repo . --yes --policy contained --json < prompt.txt | jq .
Exit status: 0 completed, 1 failed, 2 wrong usage, 3 blocked or refused, 130 cancelled."""
    )
)
@click.argument("prompt")
@click.option("--agent", required=True, help="Agent type; see: kandev-host agent types")
@click.option("--repo", metavar="PATH|URL", help="Repository to work on; the agent gets a clone of its own.")
@click.option("--branch", help="Branch to start from [default: the one checked out].")
@click.option(
    "--allow",
    metavar="ENTRY",
    multiple=True,
    help="Let the agent reach this: pypi.org, *.example.org, name:port, 127.0.0.1:PORT or @preset; repeatable.",
)
@click.option(
    "--credential",
    metavar="NAME",
    multiple=True,
    help="Let the agent use this credential of the settings; repeatable.",
)
@click.option("--title", help="Title of the task [default: the prompt's first line].")
@click.option("--yes", is_flag=True, help="Do not ask; needs --policy.")
@click.option(
    "--policy",
    type=click.Choice(["contained", "unattended"]),
    help="With --yes: allow what the jail confines, or everything.",
)
@click.option(
    "--confirm",
    type=click.Choice(["unattended"]),
    help="That --policy unattended is meant, where nobody can type the word.",
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds.")
@settings_options
@as_json
def command(
    prompt: str,
    agent: str,
    repo: str | None,
    branch: str | None,
    allow: tuple[str, ...],
    credential: tuple[str, ...],
    title: str | None,
    yes: bool,
    policy: str | None,
    confirm: str | None,
    timeout_s: float | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> int:
    """Give an agent one task, watch it work, see its diff.

    PROMPT is what to do; - reads it from standard input. The running host is used, or one is started for the time.
    Ctrl-C cancels the turn; a second one stops the agent, and so does an output that nobody reads any more.
    """
    if yes != (policy is not None):
        raise click.UsageError("--yes and --policy go together: --yes --policy contained")
    if policy == "unattended":
        _meant(confirm)
    elif confirm is not None:
        raise click.UsageError("--confirm goes with --policy unattended alone.")
    from kandev_host.cli.running.conversation import Order

    text = text_of(prompt)
    order = Order(
        prompt=text,
        agent=agent,
        title=title or text.strip().splitlines()[0][:TITLE_CHARS],
        repository_url=repo and repository(repo),
        branch=branch,
        allow=allow,
        credentials=credential,
        preset=policy,
        timeout_s=timeout_s,
    )
    return _run(load_settings(config, data_dir), order, as_json=as_json)


def _meant(confirm: str | None) -> None:
    """That nobody is asked needs the whole word. Raises `UsageError` for any other."""
    click.echo("Unattended: every request of the agent is allowed. The jail alone confines it.", err=True)
    if confirm is None and not os.isatty(0):
        raise click.UsageError("Nobody can be asked here: --policy unattended needs --confirm unattended.")
    if confirm is None and click.prompt("Type unattended to go on", default="", show_default=False, err=True) != (
        "unattended"
    ):
        raise click.UsageError("Not confirmed: nothing was started.")


def _tell_unread(outcome: Outcome) -> None:
    if outcome.result == "cancelled":
        told = f"nobody reads this any more, so the agent was stopped; its work is kept: task {outcome.task_id}"
        with suppress(BrokenPipeError):
            click.echo(f"kandev-host: {told}", err=True)


def _run(loaded: Loaded, order: Order, *, as_json: bool) -> int:
    import anyio

    from kandev_host.cli.access import open_client
    from kandev_host.cli.output import console, silence
    from kandev_host.cli.running.ask import Asker
    from kandev_host.cli.running.conversation import Conversation
    from kandev_host.cli.running.view import JsonView, TerminalView, View
    from kandev_host.logs import logging_to

    view: View = JsonView() if as_json else TerminalView(console())
    asker = Asker(console(stderr=as_json), interactive=os.isatty(0))

    async def converse() -> int:
        async with open_client(loaded, runs=True) as (client, url):
            outcome = await Conversation(client, order, view, asker, url).run()
        try:
            if not outcome.unread:
                view.finished(outcome)
        except BrokenPipeError:
            outcome.unread = True
        if outcome.unread:
            silence()
            _tell_unread(outcome)
        return outcome.exit_status

    with logging_to(loaded.settings.log):
        status = anyio.run(converse)
    # All is done and said: one more Ctrl-C would only tear a trace into the end of Python.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return status
