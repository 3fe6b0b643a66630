"""`kandev-host import`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

WORK = ".import.copy"


@click.command(
    "import",
    epilog=example(
        "kandev-host import boards.jsonl --dry-run\nkandev-host import boards.jsonl\n"
        "kandev-host import boards.jsonl --skip-existing --json"
    ),
)
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--skip-existing", is_flag=True, help="Leave what is there already as it is; else it is refused.")
@click.option("--new-ids", is_flag=True, help="Give everything a new id, so that it stands beside what is there.")
@click.option("--dry-run", is_flag=True, help="Do all of it on a copy, and change nothing.")
@settings_options
@as_json
def command(
    config: Path | None,
    data_dir: Path | None,
    source: Path,
    skip_existing: bool,
    new_ids: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Read what export wrote: all of it, or nothing. The host must be stopped.

    Ids are kept. What was under way is imported as ended. The data as it was is kept, and restoring it undoes this.
    """
    import anyio

    from kandev_host.cli.keeping import alone, counts, run

    if skip_existing and new_ids:
        raise click.UsageError(
            "--skip-existing and --new-ids exclude each other: with new ids nothing is there already"
        )
    loaded = load_settings(config, data_dir)

    def work() -> Any:
        with alone(loaded, "import"):
            return anyio.run(_import, loaded, source, source.stat().st_size, skip_existing, new_ids, dry_run)

    done, kept = run(work, loaded)
    if as_json:
        emit(
            {
                "imported": not dry_run,
                "kept": str(kept) if kept else None,
                "counts": done.taken,
                "skipped": done.skipped,
            }
        )
        return
    skipped = counts(done.skipped)
    told = f"{counts(done.taken)}{'' if skipped == 'nothing' else f'; already there: {skipped}'}"
    click.echo(printable(f"Can be imported: {told}. Nothing was changed." if dry_run else f"Imported {told}"))
    if kept:
        click.echo(printable(f"To undo it: kandev-host restore {shlex.quote(str(kept))}"))


async def _import(
    loaded: Loaded, source: Path, size_bytes: int, skip_existing: bool, new_ids: bool, dry_run: bool
) -> Any:
    from anyio.to_thread import run_sync

    from kandev_host.backups.importing import check, fresh, take
    from kandev_host.backups.making import check_room, explained, partial, sound
    from kandev_host.cli.keeping import origin_of, progress

    upkeep, tell = origin_of(loaded).upkeep, progress()
    ids = await run_sync(check, source, tell)
    size = upkeep.size_bytes()
    with explained(loaded.data_dir), partial(loaded.data_dir / WORK) as copy:
        check_room(loaded.data_dir, (size or 0) + 2 * size_bytes)
        if size is not None:
            await run_sync(lambda: upkeep.back_up(copy, tell, with_secrets=True))
        async with upkeep.open_copy(copy) as store:
            done = await take(
                store,
                source,
                tell,
                existing="skip" if skip_existing else "refuse",
                new_ids=fresh(ids) if new_ids else None,
            )
        sound(await run_sync(lambda: upkeep.inspect(tell, copy=copy)))
        nothing = dry_run or not any(done.taken.values())
        kept = None if nothing else await run_sync(upkeep.replace, copy)
    return done, kept
