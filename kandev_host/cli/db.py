"""`kandev-host db check|vacuum`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit, fields, hints
from kandev_host.printable import printable


@click.group(epilog=example("kandev-host db check\nkandev-host db vacuum"))
def command() -> None:
    """Check and tidy the database."""


@command.command(epilog=example("kandev-host db check\nkandev-host db check --json | jq -e '.ok'"))
@settings_options
@as_json
def check(config: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Read all of the database and say what is wrong with it; also while the host runs.

    Its pages, its references, its schema, gaps in the journal, the size of the log. Exit status 1 for any problem.
    """
    from kandev_host.cli.keeping import counts, origin_of, progress, run, size

    loaded = load_settings(config, data_dir)
    found = run(lambda: origin_of(loaded).upkeep.inspect(progress()), loaded)
    ok = not found.problems
    if as_json:
        emit({"ok": ok, **asdict(found)})
        return 0 if ok else 1
    fields(
        [
            ("state", "ok" if ok else "damaged"),
            ("schema version", f"{found.schema_version} of {found.known_version}"),
            ("journal", f"events {found.oldest} to {found.head}"),
            ("size", size(found.size_bytes)),
            ("log", size(found.log_bytes)),
            ("rows", counts(found.counts)),
        ]
    )
    hints(("Problem", problem) for problem in found.problems)
    if not ok:
        hints([("Fix", "stop the host, then kandev-host restore a backup (kandev-host backup list)")])
    return 0 if ok else 1


@command.command(epilog=example("kandev-host db vacuum\nkandev-host db vacuum --json"))
@settings_options
@as_json
def vacuum(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Give back to the disk what was removed from the database. The host must be stopped.

    It needs as much room as the database takes, for the time.
    """
    from kandev_host.backups.making import check_room
    from kandev_host.cli.keeping import alone, origin_of, progress, run, size
    from kandev_host.errors import Unavailable

    loaded = load_settings(config, data_dir)

    def work() -> Any:
        with alone(loaded, "db vacuum"):
            upkeep = origin_of(loaded).upkeep
            before = upkeep.size_bytes()
            if before is None:
                raise Unavailable("There is no database yet", fix="the first kandev-host up makes it")
            check_room(loaded.data_dir, 2 * before)
            upkeep.vacuum(progress())
            return before, upkeep.size_bytes()

    before, after = run(work, loaded)
    if as_json:
        emit({"size_bytes_before": before, "size_bytes": after})
    else:
        click.echo(printable(f"The database took {size(before)} and takes {size(after or 0)}"))
