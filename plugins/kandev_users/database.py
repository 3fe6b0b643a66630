"""The file users.db: read once at the start, and written in whole transactions, on the disk when they return."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar, cast

import msgspec

from kandev_host.errors import Busy, KandevError, StartupError, StorageFull, Unavailable
from kandev_users.rows import TABLES, Row

R = TypeVar("R", bound=Row)

FILE = "users.db"
APPLICATION_ID = 0x6B647573
VERSION = 1
BUSY_S = 5.0
HELD = "it holds until the host ends, and for good only once it is written; make room, then ask again"
SCHEMA = """
CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'member', 'admin')),
    password_hash TEXT,
    disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    owner_id TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    expires_at TEXT,
    last_used_at TEXT,
    created_at TEXT NOT NULL
) STRICT;
CREATE TABLE logins (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    family BLOB NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    expires_at TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE TABLE revoked (
    id TEXT PRIMARY KEY,
    expires_at TEXT NOT NULL
) STRICT;
"""


class Database:
    """Use as a context manager. Raises `StartupError` for a file that others could read, or that is none of ours."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._db: sqlite3.Connection
        # What could not be written, and holds all the same.
        self._kept: dict[str, Row] = {}
        self._left: dict[str, Row] = {}

    def __enter__(self) -> Database:
        _check_file(self._path)
        try:
            self._db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise StartupError(
                f"{self._path} cannot be used ({error}): restore it from a backup, or delete it"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.holding:
            with suppress(KandevError):
                self.write((), ())
        self._db.close()

    def _prepare(self) -> None:
        run = self._db.execute
        for pragma in ("trusted_schema = OFF", "journal_mode = DELETE", "synchronous = FULL", "secure_delete = ON"):
            run(f"PRAGMA {pragma}")
        application, version = (int(run(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version"))
        if (application, version) == (0, 0) and not run("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            run("BEGIN IMMEDIATE")
            for statement in SCHEMA.split(";\n"):
                run(statement)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {VERSION}")
            run("COMMIT")
        elif application != APPLICATION_ID:
            raise StartupError(f"{self._path} is not of kandev-host: move it away")
        elif version > VERSION:
            raise StartupError(f"{self._path} was made by a newer kandev-host: upgrade this one")
        elif run("PRAGMA quick_check").fetchone()[0] != "ok":
            raise StartupError(f"{self._path} is damaged: restore it from a backup made --with-secrets, or delete it")

    def rows(self, kind: type[R]) -> list[R]:
        """All of a table. For the start: the caller waits."""
        names = [each.name for each in msgspec.structs.fields(kind)]
        table = TABLES[cast("type[Row]", kind)]
        found = self._db.execute(f"SELECT {', '.join(names)} FROM {table}")  # noqa: S608 - our own names
        try:
            return [msgspec.convert(dict(zip(names, row, strict=True)), kind, strict=False) for row in found]
        except (msgspec.ValidationError, sqlite3.Error) as error:
            raise StartupError(f"{self._path} is damaged ({error}): restore it from a backup, or delete it") from error

    @property
    def holding(self) -> bool:
        """Is there something that could not be written, and goes into the next change that can be?"""
        return bool(self._kept or self._left)

    def write(self, puts: Iterable[Row], gone: Iterable[Row], *, ends: bool = False) -> None:
        """Keep `puts` and remove `gone`, all or nothing. Waits for the disk: one thread at a time may call it.

        Raises `StorageFull`, `Busy` or `Unavailable`; nothing was written then. What `ends` something is held.
        """
        kept, left = {row.id: row for row in puts}, {row.id: row for row in gone}
        kept = {id: row for id, row in self._kept.items() if id not in left} | kept
        left = {id: row for id, row in self._left.items() if id not in kept} | left
        try:
            self._transact(kept.values(), left.values())
        except sqlite3.Error as error:
            if ends:
                self._kept, self._left = kept, left
            raise _explained(error, HELD if ends else "nothing was changed") from error
        self._kept, self._left = {}, {}

    def _transact(self, puts: Iterable[Row], gone: Iterable[Row]) -> None:
        run = self._db.execute
        run("BEGIN IMMEDIATE")
        try:
            for row in gone:
                run(f"DELETE FROM {TABLES[type(row)]} WHERE id = ?", (row.id,))  # noqa: S608 - our own names
            for row in puts:
                values = msgspec.to_builtins(row, builtin_types=(bytes,))
                marks = ", ".join(f":{name}" for name in values)
                changes = ", ".join(f"{name} = :{name}" for name in values)
                # Not INSERT OR REPLACE: that would remove another row of the same name.
                run(
                    f"INSERT INTO {TABLES[type(row)]} ({', '.join(values)}) VALUES ({marks})"  # noqa: S608
                    f" ON CONFLICT (id) DO UPDATE SET {changes}",
                    values,
                )
            run("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                run("ROLLBACK")
            raise


def _check_file(path: Path) -> None:
    """Make it at first use. Raises `StartupError` for what others could read or replace."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StartupError(f"{path} cannot be made: {error.strerror}") from error
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise StartupError(f"{path} is not a file of yours: move it away")
    if found.st_mode & 0o077:
        raise StartupError(f"Others may read or write {path}: chmod 600 {path}, and have all passwords changed")


def _explained(error: sqlite3.Error, so: str) -> StorageFull | Busy | Unavailable:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"The disk is full: {so}")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Busy(f"Another process holds {FILE}: {so}")
    return Unavailable(f"{FILE} cannot be written ({error}): {so}", fix="look at the disk")
