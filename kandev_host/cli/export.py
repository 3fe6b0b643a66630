"""`kandev-host export`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

_COPY = re.compile(r"\.export-(\d+)\.copy(-wal|-shm|-journal)?")


@click.command(
    epilog=example(
        "kandev-host export boards.jsonl\nkandev-host export --no-events tasks.jsonl --json\n"
        "kandev-host export - | gzip > boards.jsonl.gz"
    )
)
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--events/--no-events", default=True, help="With what agents said and did [default]; it is most of it.")
@settings_options
@as_json
def command(config: Path | None, data_dir: Path | None, target: Path, events: bool, as_json: bool) -> None:
    """Write boards, tasks and their history as lines of JSON, for another host or another program.

    All of one moment, also while the host runs. A FILE of - is standard output. Not in it: workspaces and snapshots,
    the queue, settings, credentials, passwords.
    """
    import anyio

    from kandev_host.cli.keeping import counts, run

    loaded = load_settings(config, data_dir)
    found = run(lambda: anyio.run(_export, loaded, target, events), loaded)
    if as_json:
        emit({"path": None if str(target) == "-" else str(target), "counts": found}, err=str(target) == "-")
    else:
        click.echo(printable(f"Exported {counts(found)}"), err=str(target) == "-")


async def _export(loaded: Loaded, target: Path, events: bool) -> dict[str, int]:
    import anyio.to_thread

    from kandev_host.backups.export import export
    from kandev_host.backups.making import check_room, explained
    from kandev_host.cli.keeping import origin_of, progress
    from kandev_host.errors import Unavailable

    upkeep, tell = origin_of(loaded).upkeep, progress()
    size = upkeep.size_bytes()
    if size is None:
        raise Unavailable("There is nothing to export yet", fix="the first kandev-host up makes the database")
    with explained(loaded.data_dir), _own_copy(loaded.data_dir) as copy:
        check_room(loaded.data_dir, size)
        await anyio.to_thread.run_sync(upkeep.back_up, copy, tell)
        with written(target) as file:
            async with upkeep.open_copy(copy) as store:
                return await export(store, file.write, tell, events=events)


@contextmanager
def _own_copy(folder: Path) -> Iterator[Path]:
    """Of this process; those of killed ones are removed."""
    for path in folder.iterdir():
        left = _COPY.fullmatch(path.name)
        if left and not Path(f"/proc/{left[1]}").exists():
            path.unlink(missing_ok=True)
    from kandev_host.backups.making import partial

    with partial(folder / f".export-{os.getpid()}.copy") as copy:
        yield copy


@contextmanager
def written(target: Path) -> Iterator[BinaryIO]:
    """A file that has its name when it is whole; mode 0600."""
    if str(target) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    from kandev_host.backups.making import explained, partial, synchronise
    from kandev_host.cli.keeping import absolute
    from kandev_host.errors import Conflict

    path = absolute(target)
    if os.path.lexists(path):
        raise Conflict(f"{target} is there already; choose another name")
    with explained(path.parent), partial(path.with_name(f".{path.name}.partial")) as fresh:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        synchronise(path.parent)
