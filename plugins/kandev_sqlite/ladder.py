"""Migrations: numbered steps of SQL, each in one transaction with the version it leads to.

Killed at any moment, the database stands at the last finished step, and the next start goes on from there. A
database that holds something is backed up first, online, into `NAME.backup-vN` beside it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import apsw

from kandev_host import errors
from kandev_sqlite.schema import APPLICATION_ID, STEPS

logger = logging.getLogger(__name__)


def pragma(connection: apsw.Connection, name: str) -> int:
    """An integer pragma of the main database."""
    return int(connection.execute(f"PRAGMA {name}").get)


def migrate(connection: apsw.Connection, path: Path, steps: Sequence[str] = STEPS) -> None:
    """Bring the database to version `len(steps)`.

    Raises `StartupError` for a newer database, and for a file that is some other program's.
    """
    found = pragma(connection, "user_version")
    check(connection, path, found, len(steps))
    if found == len(steps):
        return
    if found > 0:
        logger.info(
            "Migrating %s from version %s to %s; backup in %s", path, found, len(steps), back_up(connection, path)
        )
    # A step that rebuilds a table must not cascade; each step is checked as a whole before it commits.
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        for version, step in enumerate(steps[found:], start=found + 1):
            climb(connection, version, step)
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


def check(connection: apsw.Connection, path: Path, found: int, known: int) -> None:
    """Refuse what this version must not touch."""
    application = pragma(connection, "application_id")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if application not in {0, APPLICATION_ID} or (application == 0 and tables):
        raise errors.StartupError(
            f"{path} is a database of another program; choose another store.sqlite.path or move it away"
        )
    if found > known:
        backup = backup_path(path, known)
        older = f", or go back to the backup {backup}" if backup.exists() else ""
        raise errors.StartupError(
            f"The database {path} has schema version {found}, made by a newer kandev-host; this one knows versions up"
            f" to {known}. Upgrade kandev-host{older}"
        )


def climb(connection: apsw.Connection, version: int, step: str) -> None:
    """Take one step, unless another process has taken it meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if pragma(connection, "user_version") < version:
            connection.execute(step)
            broken = connection.execute("PRAGMA foreign_key_check").fetchone()
            if broken is not None:
                raise errors.StartupError(f"Migration to schema version {version} would break rows of {broken[0]}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def backup_path(path: Path, version: int) -> Path:
    return path.with_name(f"{path.name}.backup-v{version}")


def back_up(connection: apsw.Connection, path: Path) -> Path:
    """Copy the database as it is now, readable only by its owner. The name appears when the copy is whole."""
    target = backup_path(path, pragma(connection, "user_version"))
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    private_file(partial)
    copy = apsw.Connection(str(partial))
    try:
        with copy.backup("main", connection, "main") as backup:
            while not backup.done:
                backup.step(1000)
        copy.execute("PRAGMA journal_mode = DELETE").fetchall()
    finally:
        copy.close()
    synchronise(partial)
    partial.replace(target)
    synchronise(target.parent)
    return target


def private_file(path: Path) -> None:
    """Make the file, mode 0600, or narrow the mode of the one there. SQLite gives its log files the same mode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def synchronise(path: Path) -> None:
    """Wait until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
