"""SQLite's errors as the house's: what undoes one commit, what fails a whole group, what stops the start."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import apsw

from kandev_host import errors

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FIELD = re.compile(r"(?:failed: |column )(?:\w+\.)?(\w+)")


class Refused(Exception):
    """One commit cannot be written; `error` is its answer. The rest of its group is not to blame."""

    def __init__(self, error: errors.KandevError) -> None:
        super().__init__(error)
        self.error = error


def code(error: apsw.Error) -> int:
    """SQLite's extended result code (which apsw's types do not mention)."""
    return int(getattr(error, "extendedresult", 0))


def refusal(error: apsw.Error, kind: str) -> errors.KandevError:
    """What a broken constraint means to the one who asked; `kind` is the noun of the row."""
    found = _FIELD.search(str(error))
    field = found.group(1) if found else kind
    match code(error):
        case apsw.SQLITE_CONSTRAINT_UNIQUE | apsw.SQLITE_CONSTRAINT_PRIMARYKEY:
            return errors.Conflict(f"There is already another {kind} with this {field}", field=field)
        case apsw.SQLITE_CONSTRAINT_NOTNULL:
            return errors.ValidationFailed(field, f"{field} of a {kind} must be given")
        case apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
            return errors.Conflict(f"This {kind} and another row refer to each other")
        case _:
            return errors.ValidationFailed(field, f"{field} of a {kind} is out of bounds or of a wrong type")


def only_added() -> errors.KandevError:
    """The answer to whoever would change the audit."""
    return errors.ValidationFailed("audit", "The audit is only added to")


def failure(error: apsw.Error, connection: apsw.Connection) -> errors.KandevError:
    """What a failed transaction or query means. Nothing of it was written.

    After a failed write SQLite's log is written again from the same place by the next transaction, so that a later
    success never rests on pages which the kernel dropped: going on after an I/O error is sound here.
    """
    match error:
        case apsw.FullError():
            return errors.StorageFull("The disk is full; nothing was written")
        case apsw.IOError() if connection.system_errno in FULL_ERRNOS:
            return errors.StorageFull("The disk or its quota is full; nothing was written")
        case apsw.BusyError() | apsw.LockedError():
            return errors.Busy("Another process holds the database; nothing was written")
        case apsw.InterruptError():
            return errors.TimedOut("The query took too long")
        case apsw.CorruptError() | apsw.NotADBError():
            return errors.Unavailable("The database is damaged", reason=str(error), fix="Restore a backup of it")
        case apsw.IOError() | apsw.CantOpenError() | apsw.ReadOnlyError() | apsw.PermissionsError():
            return errors.Unavailable(
                "The database cannot be used", reason=str(error), fix="Check the disk and the permissions of its folder"
            )
        case apsw.SQLError() if str(error).startswith(("no such table", "no such column")):
            return errors.Unavailable(
                "The database is of another version of kandev-host",
                reason=str(error),
                fix="Start that version, or choose another data folder (--data-dir)",
            )
        case _:
            return errors.KandevError(f"The database failed: {error}")


def startup_failure(error: apsw.Error, path: Path) -> errors.StartupError:
    """Why the database cannot be opened, in one line, with the fix."""
    match error:
        case apsw.BusyError() | apsw.LockedError():
            fix = "another process holds it; stop that process"
        case apsw.NotADBError() | apsw.CorruptError():
            fix = "it is not a SQLite database, or is damaged; restore a backup or choose another store.sqlite.path"
        case apsw.FullError():
            fix = "the disk is full; make room"
        case _:
            fix = "check that its folder exists and that you may write there, or choose another store.sqlite.path"
    return errors.StartupError(f"Cannot open the database {path} ({error}): {fix}")
