"""Copies of the database, checks, and the way back; each call on connections of its own, never on the store's.

A copy is made by SQLite's online backup inside one read transaction: nobody waits for it, and writes meanwhile are
neither in it nor make it begin again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from kandev_host import Progress, Store, StoreReport, errors, models
from kandev_sqlite.failures import FULL_ERRNOS
from kandev_sqlite.ladder import private_file, synchronise
from kandev_sqlite.report import report

if TYPE_CHECKING:
    from kandev_sqlite import SqliteSettings

logger = logging.getLogger(__name__)
STEP_PAGES = 1000
OPCODES = 100_000  # between two looks whether to go on: some milliseconds
FULL = "The disk or its quota is full; nothing was changed. Make room, and try again"
LOGS = ("-wal", "-shm", "-journal")
HASHES = "UPDATE users SET password_hash = NULL WHERE password_hash IS NOT NULL"


class SqliteUpkeep:
    """See `Upkeep`."""

    def __init__(self, path: Path, settings: SqliteSettings, version: str) -> None:
        self._path = path
        self._settings = settings
        self._version = version

    def size_bytes(self) -> int | None:
        try:
            return sum(part.stat().st_size for part in (self._path, Path(f"{self._path}-wal")) if part.exists()) or None
        except OSError as error:
            raise errors.Unavailable(f"{self._path} cannot be looked at: {error.strerror}") from error

    def log_bytes(self) -> int | None:
        try:
            return Path(f"{self._path}-wal").stat().st_size
        except FileNotFoundError:
            return 0 if self._path.exists() else None
        except OSError as error:
            raise errors.Unavailable(f"{self._path}-wal cannot be looked at: {error.strerror}") from error

    def back_up(
        self, copy: Path, progress: Progress, *, source: Path | None = None, with_secrets: bool = False
    ) -> None:
        with _translated(source or self._path), _nothing_left(copy):
            private_file(copy)
            with self._opened(source or self._path, progress) as db, self._opened(copy, progress) as into:
                db.execute("BEGIN")
                db.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the moment of the copy
                with into.backup("main", db, "main") as backup:
                    while not backup.done:
                        backup.step(STEP_PAGES)
                        progress("copy", backup.page_count - backup.remaining, backup.page_count)
                db.execute("ROLLBACK")
                into.execute("PRAGMA journal_mode = DELETE").fetchall()
                if not with_secrets and _has_users(into):
                    into.execute(HASHES)
                    if into.changes():
                        into.execute("VACUUM")  # else they lie on in what the rows left free
            synchronise(copy)

    def inspect(self, progress: Progress, *, copy: Path | None = None) -> StoreReport:
        path = copy or self._path
        if not path.exists():
            raise errors.Unavailable(f"There is no database {path}", fix="the first kandev-host up makes it")
        progress("check", 0, 0)
        with _translated(path), self._opened(path, progress) as db:
            return report(db, path)

    @asynccontextmanager
    async def open_copy(self, copy: Path) -> AsyncIterator[Store]:
        from kandev_sqlite.store import SqliteStore

        store = await SqliteStore.open(copy, self._settings, self._version)
        try:
            yield store
        finally:
            await store.close()

    def replace(self, copy: Path) -> Path | None:
        with _translated(self._path):
            with self._opened(copy) as db:
                db.execute("UPDATE meta SET value = ? WHERE key = 'journal_id'", (models.new_id(),))
                db.execute("PRAGMA journal_mode = DELETE").fetchall()
            synchronise(copy)
            fresh = self._path.with_name(f"{self._path.name}.new")
            _move(copy, fresh)
            kept = self._keep()
            fresh.replace(self._path)
            synchronise(self._path.parent)
        return kept

    def vacuum(self, progress: Progress) -> None:
        with _translated(self._path), self._opened(self._path, progress) as db:
            progress("vacuum", 0, 0)
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _keep(self) -> Path | None:
        """A second name for the database that is there, and its log out of the way of the next one."""
        if not self._path.exists():
            return None
        at = models.now().strftime("%Y%m%dT%H%M%S%fZ")
        kept = self._path.with_name(f"{self._path.name}.replaced-{at}")
        try:
            with self._opened(self._path) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except apsw.Error as error:
            logger.warning("The log of %s could not be folded into it (%s); it is kept beside it", self._path, error)
        os.link(self._path, kept)
        for ending in LOGS:
            with suppress(FileNotFoundError):
                os.rename(f"{self._path}{ending}", f"{kept}{ending}")
        synchronise(self._path.parent)
        return kept

    @contextmanager
    def _opened(self, path: Path, progress: Progress | None = None) -> Iterator[apsw.Connection]:
        """A connection that trusts nothing in the file. `progress` may end what runs on it."""
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.set_busy_timeout(round(self._settings.busy_timeout_s * 1000))
            db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            db.execute("PRAGMA trusted_schema = OFF; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON").fetchall()
            if progress is not None:
                db.set_progress_handler(lambda: _goes_on(progress), OPCODES)
            yield db
        except apsw.IOError as error:
            if db.system_errno in FULL_ERRNOS:
                raise errors.StorageFull(FULL) from error
            raise
        finally:
            db.close()


def _goes_on(progress: Progress) -> bool:
    progress("", 0, 0)
    return False


def _has_users(db: apsw.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'users'").get)


def _move(source: Path, target: Path) -> None:
    """Also to another file system; whole, on the disk and readable only by its owner when it returns."""
    target.unlink(missing_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        private_file(target)
        shutil.copyfile(source, target)
        synchronise(target)
        source.unlink()
    synchronise(target.parent)


@contextmanager
def _nothing_left(copy: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for ending in ("", *LOGS):
            Path(f"{copy}{ending}").unlink(missing_ok=True)
        raise


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system as the house's, with what to do."""
    try:
        yield
    except apsw.FullError as error:
        raise errors.StorageFull(FULL) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise errors.Busy(f"Another process holds {path}; stop it and try again") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise errors.Unavailable(
            f"{path} is damaged, or no SQLite database ({error})", fix="use another backup: kandev-host backup list"
        ) from error
    except apsw.IOError as error:
        raise errors.Unavailable(f"{path} cannot be read or written ({error})", fix="check the disk") from error
    except apsw.Error as error:
        raise errors.Unavailable(f"{path} cannot be used ({error})", fix="check its folder and permissions") from error
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise errors.StorageFull(FULL) from error
        raise errors.Unavailable(
            f"{path}: {error.strerror}", fix="check that the folder is there and that you may write to it"
        ) from error
