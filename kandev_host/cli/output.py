"""What goes to the terminal: tables, lines and JSON, with everything foreign escaped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from kandev_host.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 1 << 16
_STYLES = {
    "ok": "green",
    "active": "green",
    "yes": "green",
    "broken": "red",
    "failed": "red",
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "IN_PROGRESS": "cyan",
    "FAILED": "red",
    "BLOCKED": "yellow",
    "pending": "yellow",
    "missing": "yellow",
    "warning": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    """A rich console that never reads markup, emoji codes or numbers out of what it prints.

    Raises `BrokenPipeError` when nobody reads it any more.
    """
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich's own would end the process, from wherever in a task group this is

    return Plain(stderr=stderr, markup=False, emoji=False, highlight=False)


def silence() -> None:
    """The reader has gone, as in `| head`; without this Python complains once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit(value: Any, *, err: bool = False) -> None:
    """One line of JSON. ASCII only: a terminal obeys some of what JSON leaves unescaped, such as U+009B."""
    click.echo(json.dumps(msgspec.to_builtins(value), ensure_ascii=True), err=err)


def fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """One value a line. What has several lines goes on behind a bar: it cannot pass for ours."""
    named = [(name, _plain(value)) for name, value in pairs]
    width = max((len(name) for name, _ in named), default=0) + 1
    for name, value in named:
        shown = printable(value.rstrip(), lines=True).replace("\n", "\n    | ")
        click.echo(f"{name + ':':{width}} {shown}".rstrip())


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def done(what: str, id: str, more: str) -> None:
    """What a command has done, in one line."""
    click.echo(printable(f"{what} {id}" + (f": {more}" if more else "")))


def counted(number: int, noun: str, *, more: bool = False) -> str:
    """As in `3 tasks`; with `more`, there may be others."""
    return f"{'more than ' if more else ''}{number} {noun}{'' if number == 1 and not more else 's'}"


def removed(reply: Mapping[str, Any]) -> str:
    """What went with a deletion, as the host counted it."""
    told = ((name.replace("_", " "), value) for name, value in (reply.get("removed") or {}).items() if value)
    return ", ".join(name if value is True else f"{name} {value}" for name, value in told)


def hints(pairs: Iterable[tuple[str, str]]) -> None:
    """What to do about something, each in one line that no table folds: what is a command can be copied whole."""
    for name, hint in pairs:
        click.echo(printable(f"{name}: {hint}"))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table; it folds instead of cutting, and is not narrowed when piped."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        shown.add_row(*(Text(printable(cell), style=_STYLES.get(cell, ""), overflow="fold") for cell in row))
    out = console()
    if out.is_terminal:
        out.print(shown)
        return
    out.width = PIPED_WIDTH
    with out.capture() as captured:
        out.print(shown)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
