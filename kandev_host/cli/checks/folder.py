"""The data folder: who may enter it, its tokens, its database, its backups, and what lies around in it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kandev_host.cli.checks import LOOK_TIMEOUT_S, Check, Look
from kandev_host.errors import KandevError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from kandev_host.settings.load import Loaded

# Of each: why it matters, and what to do when it is known to others.
TOKENS = {
    "token": ("whoever reads it may do all that you may", "kandev-host token --rotate"),
    "metrics-token": (
        "whoever reads it may read /metrics, and nothing else",
        "rm {path}: the next scrape that shows a token makes a new one, to give to what scrapes",
    ),
}
LOG_WANTED_BYTES = 256 << 20
READ_S = LOOK_TIMEOUT_S - 2


class _TooLong(Exception):
    """The database is larger than there is time to read."""


def looks(loaded: Loaded) -> dict[str, Look]:
    return {
        "data folder": lambda: data_folder(loaded),
        "token": lambda: tokens(loaded),
        "database": lambda: database(loaded),
        "backups": lambda: backups(loaded),
        "left over": lambda: left_over(loaded),
    }


def data_folder(loaded: Loaded) -> Iterator[Check]:
    folder = loaded.data_dir
    if not folder.exists():
        yield Check("data folder", "ok", f"{folder} is not there yet: the first start makes it")
        return
    found = folder.stat()
    why = "whoever may enter it reads the token, and then starts programs as you"
    if found.st_uid != os.geteuid():
        fix = f"chown -R {os.geteuid()} {folder}, or set KANDEV_HOME to a folder of your own"
        yield Check("data folder", "failed", f"{folder} belongs to uid {found.st_uid}, not to you", fix, why)
    elif found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        yield Check("data folder", "failed", f"{folder} is open to others ({mode:04o})", f"chmod 700 {folder}", why)
    else:
        yield Check("data folder", "ok", f"{folder}, yours alone")


def settings_file(path: Path | None) -> Check:
    """One that anybody may write has been refused before."""
    if path is None:
        return Check("settings", "ok", "defaults, no file")
    found = path.stat()
    why = "whoever may write it chooses the programs that the host starts"
    if found.st_uid not in (0, os.geteuid()):
        fix = f"chown {os.geteuid()} {path}, unless you trust that user as yourself"
        return Check("settings", "warning", f"{path} belongs to uid {found.st_uid}, not to you", fix, why)
    if found.st_mode & 0o020:
        told = f"{path} may be written by the group {found.st_gid}"
        return Check("settings", "warning", told, f"chmod g-w {path}, unless you are alone in the group", why)
    return Check("settings", "ok", str(path))


def tokens(loaded: Loaded) -> Iterator[Check]:
    for name, (why, lost) in TOKENS.items():
        path = loaded.data_dir / name
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            yield Check(name, "failed", f"{path} is no file of yours", f"rm {path}; the host makes one", why)
        elif found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            fix = f"chmod 600 {path}; if somebody else may have read it: {lost.format(path=path)}"
            yield Check(name, "failed", f"{path} can be read by others ({mode:04o})", fix, why)
        else:
            yield Check(name, "ok", f"{path}, yours alone")


def database(loaded: Loaded) -> Iterator[Check]:
    from kandev_host.cli.keeping import origin_of, size

    ends_s = time.monotonic() + READ_S

    def progress(_what: str, _done: int, _whole: int) -> None:
        if time.monotonic() > ends_s:
            raise _TooLong

    why = "what is damaged cannot be read, and writes may damage more"
    try:
        upkeep = origin_of(loaded).upkeep
        if upkeep.size_bytes() is None:
            yield Check("database", "ok", "none yet: the first start makes it")
            return
        found = upkeep.inspect(progress)
    except _TooLong:
        yield Check("database", "ok", f"not read whole within {READ_S:g} s; kandev-host db check reads all of it")
        return
    except Unavailable as error:
        yield Check("database", "failed", error.message, str(error.details.get("fix") or "kandev-host db check"), why)
        return
    except KandevError as error:
        yield Check("database", "warning", error.message, "try again once the other process is done")
        return
    if found.problems:
        fix = "kandev-host down, then kandev-host restore one of: kandev-host backup list"
        yield Check("database", "failed", f"{len(found.problems)} problems: {found.problems[0]}", fix, why)
    elif found.log_bytes > LOG_WANTED_BYTES:
        yield Check(
            "database",
            "warning",
            f"sound, but its write-ahead log takes {size(found.log_bytes)}",
            "start the host again; if it comes back: [store.sqlite] wal_limit_pages, and look for a reader that stays",
            "reads become slow, and the disk fills",
        )
    else:
        told = f"sound, schema {found.schema_version}, {size(found.size_bytes)}, log {size(found.log_bytes)}"
        yield Check("database", "ok", told)


def backups(loaded: Loaded) -> Iterator[Check]:
    from kandev_host.backups.folder import by_hand, newest_automatic
    from kandev_host.services.backups import backup_folder

    settings = loaded.settings.backup
    why = "a database that is lost takes every board, task and transcript with it"
    if not settings.enabled:
        fix = "[backup] enabled = true, or kandev-host backup create from a timer of yours"
        yield Check("backups", "warning", "none are made by themselves", fix, why)
        return
    folder = backup_folder(settings, loaded.data_dir)
    last = newest_automatic(folder)
    made = loaded.data_dir / "token"
    since = last or (datetime.fromtimestamp(made.stat().st_mtime, UTC) if made.exists() else None)
    age_s = 0.0 if since is None else (datetime.now(UTC) - since).total_seconds()
    own = by_hand(folder)
    if last is not None:
        found = f"the last one of {last:%Y-%m-%d %H:%M} UTC in {folder}"
    else:
        found = f"no automatic one yet, {own} by hand in {folder}" if own else f"none in {folder} yet"
    if age_s > 2 * settings.interval_s:
        fix = "kandev-host backup create; kandev-host status says why the host makes none"
        yield Check("backups", "warning", f"{found}; one is due every {settings.interval_s / 3600:.1f} h", fix, why)
    else:
        yield Check("backups", "ok", found)


def left_over(loaded: Loaded) -> Iterator[Check]:
    """Databases that a restore replaced: kept until somebody says that they may go."""
    from kandev_host.cli.keeping import size

    kept = sorted(loaded.data_dir.glob("*.replaced-*")) if loaded.data_dir.exists() else []
    if not kept:
        yield Check("left over", "ok", "nothing")
        return
    names = " ".join(map(str, kept[:5]))
    yield Check(
        "left over",
        "warning",
        f"{len(kept)} files of databases that a restore replaced, {size(sum(path.stat().st_size for path in kept))}",
        f"once you need none of them: rm {names}" + (" …" if len(kept) > len(kept[:5]) else ""),
        "they take room, and hold what was meant to be gone",
    )
