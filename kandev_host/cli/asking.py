"""What every command that asks the running host shares: its options, the connection, how answers are printed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kandev_host.cli.options import as_json as json_option
from kandev_host.cli.options import place, settings_options
from kandev_host.cli.output import emit
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.client import Client
    from kandev_host.settings.load import Loaded

F = TypeVar("F", bound=Callable[..., Any])

yes_option = click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
version_option = click.option(
    "--expected-version",
    type=click.IntRange(1),
    metavar="N",
    help="Refuse if somebody has changed it since version N.",
)


class Remote:
    """The host as a command sees it."""

    def __init__(self, client: Client, *, as_json: bool) -> None:
        self.client = client
        self.as_json = as_json

    async def call(self, action: str, payload: Mapping[str, Any] | None = None, **fields: Any) -> Any:
        """The response's payload. `payload` is sent as it is; of `fields`, those that are not None."""
        return await self.client.call(action, {**(payload or {}), **given(**fields)})

    def show(self, reply: Any, plain: Callable[[], object]) -> None:
        """The reply as JSON where that was asked for, else what `plain` prints."""
        if self.as_json:
            emit(reply)
        else:
            plain()

    async def pages(
        self,
        action: str,
        rows_of: str,
        plain: Callable[[list[dict[str, Any]]], object],
        paging: Mapping[str, Any],
        **fields: Any,
    ) -> None:
        """One page of a list, or all of them: a JSON line for each page, or one table. See `paged`."""
        rows: list[dict[str, Any]] = []
        cursor = paging["cursor"]
        while True:
            reply = await self.call(action, limit=paging["limit"], cursor=cursor, **fields)
            rows += reply[rows_of]
            if self.as_json:
                emit(reply)
            cursor = reply["next_cursor"]
            if cursor is None or not paging["every"]:
                break
        if not self.as_json:
            plain(rows)
        if cursor is not None:
            click.echo(f"There are more: --cursor {printable(cursor)} goes on, --all shows all.", err=True)


def asking(function: Callable[..., Awaitable[int | None]]) -> Callable[..., int | None]:
    """A coroutine that takes a `Remote` and the command's own arguments, as the callback of a command."""

    @settings_options
    @json_option
    @functools.wraps(function)
    def run(config: Path | None, data_dir: Path | None, as_json: bool, **arguments: Any) -> int | None:
        loaded = place(config, data_dir)
        import anyio

        return anyio.run(_ask, loaded, as_json, function, arguments)

    return run


async def _ask(
    loaded: Loaded, as_json: bool, function: Callable[..., Awaitable[int | None]], arguments: Mapping[str, Any]
) -> int | None:
    from kandev_host.cli.access import running_client

    async with running_client(loaded) as client:
        return await function(Remote(client, as_json=as_json), **arguments)


def given(**fields: Any) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def paged(command: F) -> F:
    """--limit, --cursor and --all; the command takes them as `limit`, `cursor` and `every`."""
    limit = click.option("--limit", type=click.IntRange(1, 500), metavar="N", help="At most so many [default: 100].")
    cursor = click.option("--cursor", help="Go on where another page ended.")
    every = click.option("--all", "every", is_flag=True, help="All pages.")
    return limit(cursor(every(command)))


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless the answer is known.

    Raises `Exit` with status 1 for a no, and `UsageError` where nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{printable(question)} Nobody can be asked here: add --yes.")
    if not click.confirm(printable(question), err=True):
        click.echo("Nothing was deleted.", err=True)
        raise click.exceptions.Exit(1)
