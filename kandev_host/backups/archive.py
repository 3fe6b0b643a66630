"""The file of a backup: a zip with `manifest.json`, `database` and, where asked for, `secrets/NAME`. Nothing else.

Whatever is read here may be hostile: names are compared, never used as paths, and every size has a bound.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated

import msgspec
from msgspec import Meta

from kandev_host.errors import KandevError, Unavailable
from kandev_host.interfaces import Progress

MANIFEST = "manifest.json"
DATABASE = "database"
SECRETS = "secrets/"
# What of the data folder goes with `--with-secrets`, and what a restore may write there. Never settings: whoever
# changes those chooses the programs that the host starts.
SECRET_FILES = {
    "token": 64 << 10,
    "audit-key": 64 << 10,
    "jwt-secret": 64 << 10,
    "users.db": 64 << 20,
}  # and their size in bytes, at most
FORMAT = 1
MANIFEST_LIMIT_BYTES = 1 << 20
DATABASE_LIMIT_BYTES = 1 << 40
DIRECTORY_LIMIT_BYTES = 64 << 10
CHUNK_BYTES = 1 << 20
COMMENT_BYTES = 1 << 16
ENCRYPTED = 0x1
FIX = "use another backup: kandev-host backup list"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself. `sha256` and `size_bytes` are of the database in it, `counts` its rows by kind."""

    format: Annotated[int, Meta(ge=1)] = FORMAT
    version: str
    store: str
    schema_version: int
    journal_id: str
    head: int
    created_at: Annotated[datetime, Meta(tz=True)]
    automatic: bool = False
    size_bytes: Annotated[int, Meta(ge=1, le=DATABASE_LIMIT_BYTES)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    counts: dict[str, int]
    secrets: tuple[str, ...] = ()


class Damaged(Unavailable):
    """This is no backup, or not a whole one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name} cannot be restored: {reason}", reason=reason, fix=FIX)


def digest(path: Path, progress: Progress) -> str:
    """The SHA-256 of a file."""
    found, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
            done += len(chunk)
            progress("checksum", done, size)
    return found.hexdigest()


def pack(target: Path, manifest: Manifest, database: Path, secrets: Mapping[str, bytes], progress: Progress) -> None:
    """Write the archive, mode 0600, and wait until it is on the disk."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w+b") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            archive.writestr(_entry(MANIFEST), msgspec.json.format(msgspec.json.encode(manifest)))
            for name, content in secrets.items():
                archive.writestr(_entry(SECRETS + name), content)
            with database.open("rb") as source, archive.open(_entry(DATABASE), "w", force_zip64=True) as into:
                _copy(source, into, manifest.size_bytes, "pack", progress)
        file.flush()
        os.fsync(file.fileno())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o600) << 16
    return entry


class Archive:
    """An archive that has what it must have, and nothing else. Made by `opened`."""

    def __init__(self, path: Path, file: zipfile.ZipFile, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._file = file

    def unpack(self, target: Path, progress: Progress) -> None:
        """Write the database to a new file, mode 0600. Raises `Damaged` when it is not the one of the manifest."""
        found, done, size = hashlib.sha256(), 0, self.manifest.size_bytes
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as into, _readable(self.path), self._file.open(DATABASE) as source:
            while chunk := source.read(CHUNK_BYTES):
                done += len(chunk)
                if done > size:
                    raise Damaged(self.path, "the database in it is larger than it says")
                into.write(chunk)
                found.update(chunk)
                progress("unpack", done, size)
            into.flush()
            os.fsync(into.fileno())
        if done != size or found.hexdigest() != self.manifest.sha256:
            raise Damaged(self.path, "the database in it is not the one that was backed up (SHA-256)")

    def secret(self, name: str) -> bytes:
        with _readable(self.path), self._file.open(SECRETS + name) as source:
            return source.read(SECRET_FILES[name])


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Look at all of it but the database. Raises `Damaged` for what is no backup, or is more than one."""
    with _readable(path):
        # Not blocking: a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Damaged(path, "it is not a regular file")
            _check_directory(path, file)
            with zipfile.ZipFile(file) as archive:
                entries = _entries(path, archive)
                manifest = _manifest(path, archive, entries)
                yield Archive(path, archive, manifest)


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    limits = {MANIFEST: MANIFEST_LIMIT_BYTES, DATABASE: DATABASE_LIMIT_BYTES}
    limits |= {SECRETS + name: size for name, size in SECRET_FILES.items()}
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name, mode = entry.orig_filename, entry.external_attr >> 16
        if name not in limits or entry.filename != name:
            raise Damaged(path, f"{name[:80]!r} does not belong in a backup")
        if name in found:
            raise Damaged(path, f"{name!r} is in it twice")
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG} or entry.is_dir():
            raise Damaged(path, f"{name!r} is not a regular file")
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise Damaged(path, f"{name!r} is packed in a way that no backup is")
        if entry.file_size > limits[name]:
            raise Damaged(path, f"{name!r} is too large: {entry.file_size} bytes")
        found[name] = entry
    for name in (MANIFEST, DATABASE):
        if name not in found:
            raise Damaged(path, f"it has no {name}")
    return found


def _manifest(path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> Manifest:
    with archive.open(MANIFEST) as file:
        raw = file.read(MANIFEST_LIMIT_BYTES + 1)
    try:
        if len(raw) > MANIFEST_LIMIT_BYTES:
            raise msgspec.DecodeError("too large")
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Damaged(path, f"its manifest is wrong ({error})") from error
    if manifest.format > FORMAT:
        raise Unavailable(
            f"{path.name} was made by a newer kandev-host ({manifest.version})", fix="upgrade kandev-host"
        )
    if entries[DATABASE].file_size != manifest.size_bytes:
        raise Damaged(path, "the database in it has another size than the manifest says")
    if {SECRETS + name for name in manifest.secrets} != {name for name in entries if name.startswith(SECRETS)}:
        raise Damaged(path, "the secrets in it are not those that the manifest names")
    return manifest


def _check_directory(path: Path, file: IO[bytes]) -> None:
    """`zipfile` reads the list of the entries into memory as a whole, so it must be short. Raises `Damaged`."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - COMMENT_BYTES - 22)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < 22:
        raise Damaged(path, "it is no backup, or the end of it is missing")
    listed = struct.unpack_from("<I", tail, at + 12)[0]
    if at >= 20 and start + at >= 76 and tail[at - 20 : at - 16] == b"PK\6\7":  # of an archive of more than 2 GiB
        file.seek(start + at - 20 - 56)
        longer = file.read(56)
        listed = max(listed, struct.unpack_from("<Q", longer, 40)[0]) if longer[:4] == b"PK\6\6" else 1 << 63
    if listed > DIRECTORY_LIMIT_BYTES:
        raise Damaged(path, "it lists more files than a backup has")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What reading a damaged or hostile archive raises, as one error."""
    try:
        yield
    except KandevError:
        raise
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise Damaged(path, str(error)) from error
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, ValueError, EOFError) as error:
        raise Damaged(path, f"it is damaged ({error})") from error


def _copy(source: IO[bytes], into: IO[bytes], size: int, what: str, progress: Progress) -> None:
    done = 0
    while chunk := source.read(CHUNK_BYTES):
        into.write(chunk)
        done += len(chunk)
        progress(what, done, size)
