"""The pull of an image, as it is shown while it goes on."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.interfaces import Pull

LINE_EVERY_S = 5.0
_STEPS = 4


def words(layers_done: int, layers_total: int, bytes_done: int, bytes_total: int) -> str:
    """As "2 of 5 layers, 31 of 80 MB"; of what is not known yet, nothing."""
    if not layers_total:
        return "asking its registry"
    sizes = f", {bytes_done / 1e6:.0f} of {bytes_total / 1e6:.0f} MB" if bytes_total else ""
    return f"{layers_done} of {layers_total} layers{sizes}"


def quarter(bytes_done: int, bytes_total: int) -> int:
    """How many quarters of it are there."""
    return _STEPS * bytes_done // bytes_total if bytes_total else 0


class Bar:
    """On stderr: a line that is drawn over on a terminal, else a line now and then, with `as_json` an object each."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._over = sys.stderr.isatty() and not as_json
        self._shown_at = float("-inf")

    def tell(self, pull: Pull) -> None:
        if self._as_json:
            from kandev_host.cli.output import emit

            emit({name: value for name, value in asdict(pull).items() if name != "labels"}, err=True)
            return
        now = time.monotonic()
        if pull.state == "failed" or not (self._over or pull.state == "pulled" or now - self._shown_at >= LINE_EVERY_S):
            return
        self._shown_at = now
        text = words(pull.layers_done, pull.layers_total, pull.bytes_done, pull.bytes_total)
        line = printable(f"{pull.image}: {text}")
        click.echo(f"\r{line}\033[K" if self._over else line, nl=not self._over, err=True)

    def end(self) -> None:
        """What is printed next begins a line of its own."""
        if self._over and self._shown_at > float("-inf"):
            click.echo(err=True)
