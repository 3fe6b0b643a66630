"""`kandev-host restore`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit
from kandev_host.printable import printable


@click.command(
    epilog=example(
        "kandev-host restore ~/.kandev/backups/kandev-auto-20260131T030000Z.zip --dry-run\n"
        "kandev-host restore before-upgrade.zip\n"
        "kandev-host restore ~/.kandev/kandev.db.replaced-20260131T090000000000Z"
    )
)
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Check it as for a restore, and change nothing.")
@click.option("--with-secrets", is_flag=True, help="Also users, log-in token and the audit's key, if they are in it.")
@settings_options
@as_json
def command(
    config: Path | None, data_dir: Path | None, source: Path, dry_run: bool, with_secrets: bool, as_json: bool
) -> None:
    """Put a backup in the place of the host's data. The host must be stopped.

    FILE is checked as a whole first: a damaged one changes nothing. The data that was there is kept beside it, and
    restoring that file undoes this.
    """
    from kandev_host.backups.restoring import restore
    from kandev_host.cli.keeping import absolute, alone, counts, origin_of, progress, run

    loaded = load_settings(config, data_dir)

    def work() -> object:
        with alone(loaded, "restore"):
            return restore(origin_of(loaded), absolute(source), progress(), dry_run=dry_run, with_secrets=with_secrets)

    done = run(work, loaded)
    if as_json:
        emit(
            {
                "restored": not dry_run,
                "kept": str(done.kept) if done.kept else None,
                "secrets": list(done.secrets),
                "manifest": done.manifest,
                "counts": done.report.counts,
                "schema_version": done.report.schema_version,
            }
        )
        return
    holds = counts(dict(done.report.counts))
    if dry_run:
        click.echo(printable(f"{source} can be restored: {holds}. Nothing was changed."))
        return
    click.echo(printable(f"Restored {source}: {holds}"))
    if done.manifest is not None and done.manifest.secrets:
        names = ", ".join(done.manifest.secrets)
        click.echo(printable(f"{'With' if with_secrets else 'Left in it, without --with-secrets'}: {names}"))
    if done.kept:
        click.echo(printable(f"To undo it: kandev-host restore {shlex.quote(str(done.kept))}"))
