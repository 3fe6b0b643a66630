"""What backup, restore, export, import and db share: the store's upkeep, the data folder held, progress."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.errors import StartupError

if TYPE_CHECKING:
    from kandev_host.backups.making import Origin
    from kandev_host.interfaces import Progress
    from kandev_host.settings.load import Loaded

TOLD_EVERY_S = 2.0
WAIT_S = 24 * 3600.0


def origin_of(loaded: Loaded) -> Origin:
    """The store of the settings, without opening it. Raises `Unavailable` for one that brings no upkeep."""
    from kandev_host.backups.making import Origin
    from kandev_host.interfaces import Environment
    from kandev_host.plugins import load_plugins
    from kandev_host.selection import upkeep_of
    from kandev_host.services.backups import unable
    from kandev_host.version import __version__

    name = loaded.settings.use.store
    plugins = load_plugins(loaded.settings.plugins)
    upkeep = upkeep_of(plugins, loaded.settings, Environment(str(loaded.data_dir), __version__))
    if upkeep is None:
        raise unable(name)
    return Origin(upkeep, name, loaded.data_dir)


@contextmanager
def alone(loaded: Loaded, what: str) -> Iterator[None]:
    """The data folder, while no host runs on it. Raises `StartupError` saying how to stop the one that does."""
    from kandev_host.presence import only_host, running
    from kandev_host.settings.load import prepare_data_dir

    prepare_data_dir(loaded.data_dir)
    host = running(loaded.data_dir)
    if host is not None:
        raise StartupError(
            f"a host (pid {host.pid}) runs on {loaded.data_dir}, and {what} needs it stopped: kandev-host down,"
            " or, where systemd started it, systemctl --user stop kandev-host; then try again"
        )
    with only_host(loaded.data_dir):
        yield


def progress() -> Progress:
    """Tells on stderr, where a person sees it, what takes long."""
    began = told_at = time.monotonic()

    def tell(what: str, done: int, whole: int) -> None:
        nonlocal told_at
        at = time.monotonic()
        if at - told_at < TOLD_EVERY_S:
            return
        told_at = at
        share = f" {100 * done // whole} %" if whole else ""
        click.echo(f"{what or 'working'}{share}, {at - began:.0f} s", err=True)

    return tell if sys.stderr.isatty() else lambda _what, _done, _whole: None


@asynccontextmanager
async def ticking(what: str) -> AsyncIterator[None]:
    """As `progress`, for what somebody else does."""
    import anyio

    tell = progress()

    async def tick() -> None:
        while True:
            await anyio.sleep(TOLD_EVERY_S)
            tell(what, 0, 0)

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        yield
        group.cancel_scope.cancel()


def size(number: int) -> str:
    """As in 1.5 MiB."""
    amount = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


def counts(found: dict[str, int]) -> str:
    """As in boards 2, tasks 7: what there is any of."""
    return ", ".join(f"{name} {number}" for name, number in found.items() if number) or "nothing"


def run(work: Callable[[], Any], loaded: Loaded) -> Any:
    """In this process, with the host's log as the settings want it."""
    from kandev_host.logs import logging_to

    with logging_to(loaded.settings.log):
        return work()


def absolute(path: Path) -> Path:
    return path.expanduser().absolute()
