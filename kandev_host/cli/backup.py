"""`kandev-host backup [FILE|DIR]` and `backup list`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit, hints, table
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded


class _CreateUnlessNamed(click.Group):
    """`backup` alone, and `backup FILE`, are `backup create`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in {"-h", "--help"}):
            args = ["create", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_CreateUnlessNamed,
    epilog=example(
        "kandev-host backup\nkandev-host backup /mnt/usb/\nkandev-host backup before-upgrade.zip\n"
        "kandev-host backup list\nkandev-host backup list --json | jq '.backups[0].path'"
    ),
)
def command() -> None:
    """Back the host's data up, while it runs or not. Without a subcommand: create."""


@command.command(
    epilog=example(
        "kandev-host backup create\nkandev-host backup create /mnt/usb/\n"
        "kandev-host backup create before-upgrade.zip --json | jq -r .backup.path"
    )
)
@click.argument("target", metavar="[FILE|DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--with-secrets",
    is_flag=True,
    help="Also password hashes, log-in token and the audit's key; keep the file to yourself.",
)
@settings_options
@as_json
def create(config: Path | None, data_dir: Path | None, target: Path | None, with_secrets: bool, as_json: bool) -> None:
    """Make a backup: one file, whole, checked, readable by you alone.

    Without a name it lies among the host's backups. A host that runs goes on meanwhile. Workspaces, settings and
    credentials are not in it.
    """
    import anyio

    from kandev_host.cli.access import remote

    loaded = load_settings(config, data_dir)
    url, token = remote(loaded)
    if url is not None and token is not None:
        _check_target(loaded, url, target)
        made = anyio.run(_through_host, loaded, url, token, target, with_secrets)
    else:
        made = _directly(loaded, target, with_secrets)
    if as_json:
        emit({"backup": made})
        return
    from kandev_host.cli.keeping import counts, size

    click.echo(printable(f"Backed up into {made['path']} ({size(made['size_bytes'])}): {counts(made['counts'])}"))


def _check_target(loaded: Loaded, url: str, target: Path | None) -> None:
    """Before the host begins. Raises `UsageError` for a host elsewhere, `Conflict` for a taken name."""
    from kandev_host.errors import Conflict
    from kandev_host.presence import running

    if target is None:
        return
    host = running(loaded.data_dir)
    if host is None or host.url.rstrip("/") != url.rstrip("/"):
        raise click.UsageError(
            f"The host at {url} is not of this machine: it keeps its backups itself; leave out {target}"
        )
    if not target.is_dir() and os.path.lexists(target):
        raise Conflict(f"{target} is there already; choose another name")
    if not target.is_dir() and not target.absolute().parent.is_dir():
        raise click.UsageError(f"There is no folder {target.absolute().parent}")


async def _through_host(loaded: Loaded, url: str, token: str, target: Path | None, with_secrets: bool) -> Any:
    """The host makes it in its own folder; from there it goes where it was wanted."""
    from kandev_host.cli.keeping import WAIT_S, absolute, ticking
    from kandev_host.client import connect

    async with connect(url, token) as client, ticking("The host makes the backup"):
        made = (await client.call("backup.create", {"with_secrets": with_secrets}, WAIT_S))["backup"]
    if target is None:
        return made
    wanted = absolute(target)
    path = wanted / made["name"] if wanted.is_dir() else wanted
    _deliver(Path(made["path"]), path)
    return {**made, "name": path.name, "path": str(path)}


def _deliver(made: Path, path: Path) -> None:
    from kandev_host.backups.making import explained, partial, synchronise

    with explained(path.parent), partial(path.with_name(f".{path.name}.partial")) as copy:
        try:
            made.rename(path)
        except OSError:  # another file system, most likely; else what follows fails as well
            descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with made.open("rb") as source, os.fdopen(descriptor, "wb") as into:
                shutil.copyfileobj(source, into, 1 << 20)
                into.flush()
                os.fsync(into.fileno())
            copy.rename(path)
            made.unlink()
        synchronise(path.parent)


def _directly(loaded: Loaded, target: Path | None, with_secrets: bool) -> Any:
    import msgspec

    from kandev_host.backups.making import make
    from kandev_host.cli.keeping import absolute, alone, origin_of, progress, run
    from kandev_host.services.backups import backup_folder, told

    folder, name = backup_folder(loaded.settings.backup, loaded.data_dir), None
    if target is not None:
        wanted = absolute(target)
        folder, name = (wanted, None) if wanted.is_dir() else (wanted.parent, wanted.name)
        if not folder.is_dir():
            raise click.UsageError(f"There is no folder {folder}")

    def work() -> Any:
        with alone(loaded, "backup"):
            return make(origin_of(loaded), folder, progress(), name=name, with_secrets=with_secrets)

    return msgspec.to_builtins(told(run(work, loaded)))


@command.command(
    "list", epilog=example("kandev-host backup list\nkandev-host backup list --json | jq -r '.backups[].path'")
)
@settings_options
@as_json
def listed(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """The backups in the host's folder, the newest first; also when no host runs."""
    import anyio

    from kandev_host.cli.access import remote

    loaded = load_settings(config, data_dir)
    url, token = remote(loaded)
    if url is not None and token is not None:
        reply = anyio.run(_asked, url, token)
    else:
        reply = _looked_up(loaded)
    if as_json:
        emit(reply)
        return
    from kandev_host.cli.keeping import counts, size
    from kandev_host.cli.shown import moment, text

    table(
        ["MADE", "BY", "SIZE", "VERSION", "SECRETS", "PATH", "HOLDS"],
        (
            [
                moment(each["created_at"]),
                "host" if each["automatic"] else "hand",
                size(each["size_bytes"]),
                text(each["version"]),
                "yes" if each["secrets"] else "no",
                each["path"],
                each["problem"] or counts(each["counts"]),
            ]
            for each in reply["backups"]
        ),
    )
    if reply["problem"]:
        hints([("The last automatic backup failed", reply["problem"])])


async def _asked(url: str, token: str) -> Any:
    from kandev_host.client import connect

    async with connect(url, token) as client:
        return await client.call("backup.list")


def _looked_up(loaded: Loaded) -> Any:
    import msgspec

    from kandev_host.backups.folder import backups
    from kandev_host.protocol.actions.backups import BackupsReply
    from kandev_host.services.backups import backup_folder, told

    found = backups(backup_folder(loaded.settings.backup, loaded.data_dir))
    return msgspec.to_builtins(BackupsReply(backups=[told(each) for each in found]))
