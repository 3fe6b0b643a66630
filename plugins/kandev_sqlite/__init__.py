"""The default store: one SQLite file in WAL mode, through apsw (extra `kandev-host[sqlite]`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec

from kandev_host import Environment, Provider, Store, Upkeep, hookimpl

EXTRA = "kandev-host[sqlite]"


class SqliteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[store.sqlite]`.

    `path` is the database file, by default `kandev.db` in the data folder; `busy_timeout_s` is how long a group of
    writes waits for another process that holds the database before it answers BUSY (a write that comes meanwhile waits
    for that group first, so twice as long at most); `read_timeout_s` bounds one query;
    `reader_threads` is how many queries run at once; `wal_limit_pages` is how many pages of 4 KiB the write-ahead
    log takes before they are copied into the database file.
    """

    path: str | None = None
    busy_timeout_s: Annotated[float, msgspec.Meta(ge=0.0, le=60.0)] = 5.0
    read_timeout_s: Annotated[float, msgspec.Meta(gt=0.0, le=600.0)] = 30.0
    reader_threads: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2
    wal_limit_pages: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 4000


def database_path(settings: SqliteSettings, environment: Environment) -> Path:
    """Where the database is."""
    return Path(settings.path).expanduser() if settings.path else Path(environment.data_dir) / "kandev.db"


@asynccontextmanager
async def open_store(settings: SqliteSettings, environment: Environment) -> AsyncIterator[Store]:
    """Open the database, migrating it first. Raises `StartupError` when it cannot be used, with the fix."""
    from kandev_sqlite.store import SqliteStore

    store = await SqliteStore.open(database_path(settings, environment), settings, environment.version)
    try:
        yield store
    finally:
        await store.close()


# Not named upkeep: the submodule takes that name once it is imported.
def upkeep_of(settings: SqliteSettings, environment: Environment) -> Upkeep:
    """What backs up, checks and replaces the database."""
    from kandev_sqlite.upkeep import SqliteUpkeep

    return SqliteUpkeep(database_path(settings, environment), settings, environment.version)


@hookimpl
def kandev_stores() -> list[Provider[SqliteSettings, Store]]:
    missing = None if find_spec("apsw") else EXTRA
    return [Provider("sqlite", open_store, SqliteSettings, missing, upkeep=upkeep_of)]
