"""The backups that the host makes by itself: when, how many stay, and what happens when one fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import force_setattr

from kandev_host import Environment, Put, Store, intervals
from kandev_host.backups.folder import FOLDER, backups, free_name
from kandev_host.backups.making import Origin
from kandev_host.errors import Unavailable
from kandev_host.interfaces import Principal
from kandev_host.models import LOCAL_USER_ID, User, now
from kandev_host.protocol.actions.backups import BackupCreate, BackupList
from kandev_host.services.backups import BackupService
from kandev_host.settings import BackupSettings
from kandev_host.testing.world import write
from kandev_sqlite import SqliteSettings, open_store, upkeep_of

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
ME = Principal("me", "user", "me")
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Desk:
    """A store whose host was first started so long ago."""

    data: Path
    origin: Origin
    open: Callable[[], AbstractAsyncContextManager[Store]]

    @property
    def folder(self) -> Path:
        return self.data / FOLDER

    @property
    def names(self) -> list[str]:
        """Those of whole backups, the newest first."""
        return [each.path.name for each in backups(self.folder) if each.problem is None]

    async def until(self, holds: Callable[[], Any]) -> None:
        with anyio.fail_after(DEADLINE_S):
            while not holds():
                await anyio.sleep(0.02)


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    environment = Environment(str(tmp_path), "0")
    origin = Origin(upkeep_of(SqliteSettings(), environment), "sqlite", tmp_path)
    desk = Desk(tmp_path, origin, lambda: open_store(SqliteSettings(), environment))
    async with desk.open() as store:
        local = User(id=LOCAL_USER_ID, email="a@a", username="a", created_at=now() - 2 * DAY)
        await write(store, Put(local))
    return desk


def service(desk: Desk, store: Store, **settings: Any) -> BackupService:
    return BackupService(BackupSettings(**settings), store, desk.origin, "sqlite")


def an_earlier_one(desk: Desk, age: timedelta, *, automatic: bool = True) -> str:
    desk.folder.mkdir(mode=0o700, exist_ok=True)
    path = desk.folder / free_name(desk.folder, now() - age, automatic=automatic)
    path.write_bytes(b"")
    return path.name


async def test_one_that_was_missed_is_made_up_at_the_start(desk: Desk) -> None:
    an_earlier_one(desk, 2 * DAY)
    async with desk.open() as store, service(desk, store):
        await desk.until(lambda: desk.names)
    assert desk.names[0].startswith("kandev-auto-")


async def test_a_host_that_has_none_yet_makes_its_first_a_day_after_its_first_start(desk: Desk) -> None:
    async with desk.open() as store, service(desk, store):
        await desk.until(lambda: desk.names)


@pytest.mark.parametrize("age", [timedelta(hours=1), -timedelta(days=400)], ids=["not due", "made in the future"])
async def test_one_that_is_not_due_is_not_made(desk: Desk, age: timedelta) -> None:
    an_earlier_one(desk, age)
    async with desk.open() as store, service(desk, store) as daily:
        made = (await daily.create(ME, BackupCreate())).backup.name  # the automatic one would have been first
    assert desk.names == [made]


async def test_they_follow_each_other_and_only_the_oldest_automatic_ones_go(desk: Desk) -> None:
    old = [an_earlier_one(desk, number * DAY) for number in range(2, 6)]
    by_hand = an_earlier_one(desk, 9 * DAY, automatic=False)
    async with desk.open() as store, service(desk, store, interval_s=0.05, keep=3):
        await desk.until(lambda: len(desk.names) == 3 and not any((desk.folder / name).exists() for name in old))
    assert (desk.folder / by_hand).exists()
    left = {path.name for path in desk.folder.iterdir()}
    assert len([name for name in left if name.startswith("kandev-auto-")]) in {3, 4}  # stopped before one went
    assert not [name for name in left if name.startswith(".")]


def due(daily: BackupService) -> bool:
    return daily.state.next_at is not None and daily.state.next_at <= now() + timedelta(minutes=10)


async def test_a_reload_brings_the_next_one_nearer_or_puts_it_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service holds the table that a reload changes: what it says is so at once, what it does at the next look."""
    monkeypatch.setattr(intervals, "LOOK_S", 0.02)
    an_earlier_one(desk, timedelta(hours=1))
    settings = BackupSettings()
    async with desk.open() as store, BackupService(settings, store, desk.origin, "sqlite") as daily:
        await desk.until(lambda: daily.state.next_at)
        last, first = daily.state.last_at, daily.state.next_at
        assert last is not None
        assert first is not None
        assert abs(first - (last + DAY)) < timedelta(minutes=1)
        force_setattr(settings, "interval_s", 2 * 86_400.0)
        assert daily.state.next_at == first + DAY
        force_setattr(settings, "interval_s", 1800.0)
        await desk.until(lambda: desk.names)
        await desk.until(lambda: daily.state.next_at and not due(daily))
        assert (daily.state.next_at or first) <= now() + timedelta(minutes=30)


async def test_a_failure_is_told_with_the_fix_and_is_over_with_the_next_success(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.folder.write_text("a file where the folder should be")
    async with desk.open() as store, service(desk, store, interval_s=0.05) as daily:
        await desk.until(lambda: daily.problem)
        assert "Fix: check that it is there" in str(daily.problem)
        assert "automatic backup failed" in caplog.text
        desk.folder.unlink()
        await desk.until(lambda: daily.problem is None)
        assert (await daily.list(ME, BackupList())).problem is None
    assert desk.names


async def test_whoever_stops_waiting_ends_it_and_nothing_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = anyio.Event()
    back_up = desk.origin.upkeep.back_up

    def slowly(copy: Path, progress: Any, **how: Any) -> None:
        def telling(*told: Any) -> None:
            anyio.from_thread.run_sync(begun.set)
            while True:
                progress(*told)  # until it raises

        back_up(copy, telling, **how)

    monkeypatch.setattr(desk.origin.upkeep, "back_up", slowly)
    async with desk.open() as store, service(desk, store, enabled=False) as daily, anyio.create_task_group() as group:
        group.start_soon(daily.create, ME, BackupCreate())
        with anyio.fail_after(DEADLINE_S):
            await begun.wait()
        group.cancel_scope.cancel()
    assert list(desk.folder.iterdir()) == []


async def test_none_is_made_where_that_is_turned_off(desk: Desk) -> None:
    async with desk.open() as store, service(desk, store, enabled=False) as daily:
        made = (await daily.create(ME, BackupCreate())).backup.name
    assert desk.names == [made]


async def test_a_store_that_cannot_says_so(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with desk.open() as store, BackupService(BackupSettings(), store, None, "other") as daily:
        with pytest.raises(Unavailable, match="The store other cannot be backed up"):
            await daily.create(ME, BackupCreate())
        with pytest.raises(Unavailable, match="The store other cannot be backed up"):
            await daily.list(ME, BackupList())
        assert daily.problem is None
