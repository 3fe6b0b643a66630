from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kandev_host import Environment, Store
from kandev_host.backups.making import Origin
from kandev_host.testing.world import a_world
from kandev_sqlite import SqliteSettings, open_store, upkeep_of


@dataclass(frozen=True)
class Place:
    """A data folder with a store."""

    origin: Origin
    open: Callable[[], AbstractAsyncContextManager[Store]]


def made(folder: Path) -> Place:
    folder.mkdir(mode=0o700)
    environment = Environment(str(folder), "test")
    origin = Origin(upkeep_of(SqliteSettings(), environment), "sqlite", folder)
    return Place(origin, lambda: open_store(SqliteSettings(), environment))


@pytest.fixture
def empty(tmp_path: Path) -> Callable[[str], Place]:
    return lambda name: made(tmp_path / name)


@pytest.fixture
async def place(tmp_path: Path, anyio_backend: str) -> Place:
    """One of each kind of row is in it."""
    place = made(tmp_path / "data")
    async with place.open() as store:
        await a_world(store)
    return place
