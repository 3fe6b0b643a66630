"""The way back: a file is unpacked beside the database, checked as a whole, and only then takes its place."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from kandev_host.backups.archive import Archive, Damaged, Manifest, opened
from kandev_host.backups.making import Origin, check_room, explained, partial, sound, synchronise
from kandev_host.errors import Unavailable
from kandev_host.interfaces import Progress, StoreReport

WORK = ".restore.copy"
_ZIP = b"PK\3\4"


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was, or would be, restored. `kept` is where the database that was replaced lies; `secrets` were written."""

    report: StoreReport
    manifest: Manifest | None
    kept: Path | None = None
    secrets: tuple[str, ...] = ()


def restore(
    origin: Origin, source: Path, progress: Progress, *, dry_run: bool = False, with_secrets: bool = False
) -> Restored:
    """Put a backup, or a database that an earlier restore kept, in the place of the store. No host may run.

    Raises `Unavailable` for what is damaged, hostile or newer, and for secrets that are wanted and not in it,
    `StorageFull`; the store is then as it was.
    """
    with explained(origin.data_dir), partial(origin.data_dir / WORK) as copy:
        manifest, secrets = None, {}
        if not source.is_file():
            raise Damaged(source, "it is not a regular file")
        if _is_archive(source):
            with opened(source) as archive:
                if with_secrets and not archive.manifest.secrets:
                    raise _without_secrets(source)
                report, manifest = _unpacked(origin, archive, copy, progress), archive.manifest
                secrets = {name: archive.secret(name) for name in manifest.secrets} if with_secrets else {}
        elif with_secrets:
            raise _without_secrets(source)
        else:
            check_room(origin.data_dir, source.stat().st_size)
            origin.upkeep.back_up(copy, progress, source=source, with_secrets=True)
            report = sound(origin.upkeep.inspect(progress, copy=copy))
        if dry_run:
            return Restored(report=report, manifest=manifest)
        kept = origin.upkeep.replace(copy)
        for name, content in secrets.items():
            _write_secret(origin.data_dir, name, content)
    return Restored(report=report, manifest=manifest, kept=kept, secrets=tuple(secrets))


def _without_secrets(source: Path) -> Unavailable:
    return Unavailable(
        f"{source.name} has no secrets: no users, no tokens, no keys; nothing was changed",
        fix="leave --with-secrets out, and those that are there stay; or restore one that was made with it",
    )


def _unpacked(origin: Origin, archive: Archive, copy: Path, progress: Progress) -> StoreReport:
    manifest = archive.manifest
    if manifest.store != origin.store:
        raise Unavailable(
            f"{archive.path.name} is a backup of the store {manifest.store}, and this host uses {origin.store}",
            fix=f'set [use] store = "{manifest.store}", or carry the data over: kandev-host export, then import',
        )
    check_room(origin.data_dir, manifest.size_bytes)
    archive.unpack(copy, progress)
    report = origin.upkeep.inspect(progress, copy=copy)
    if report.problems:
        raise Damaged(archive.path, report.problems[0])
    if report.counts != manifest.counts or report.head != manifest.head:
        raise Damaged(archive.path, "the database in it holds something else than the manifest says")
    return report


def _is_archive(source: Path) -> bool:
    with source.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _write_secret(data_dir: Path, name: str, content: bytes) -> None:
    with partial(data_dir / f".{name}.new") as fresh:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # What a killed host had begun to write belongs to the file that is replaced.
        (data_dir / f"{name}-journal").unlink(missing_ok=True)
        fresh.rename(data_dir / name)
        synchronise(data_dir)
