"""What goes to the terminal: tables, lines and JSON, with everything foreign escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from kandev_host.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {
    "ok": "green",
    "active": "green",
    "yes": "green",
    "broken": "red",
    "failed": "red",
    "missing": "yellow",
    "warning": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    """A rich console that never reads markup, emoji codes or numbers out of what it prints."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def emit(value: Any) -> None:
    """One line of JSON. ASCII only: a terminal obeys some of what JSON leaves unescaped, such as U+009B."""
    click.echo(json.dumps(msgspec.to_builtins(value), ensure_ascii=True))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table; it folds instead of cutting, and is not narrowed when piped."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        shown.add_row(*(Text(printable(cell), style=_STYLES.get(cell, ""), overflow="fold") for cell in row))
    out = console()
    if not out.is_terminal:
        out.width = 4096
    out.print(shown)
