"""What every Upkeep must do. Subclass `UpkeepContract` and give it a fixture `place`: a store not opened, and empty."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio.to_thread
import msgspec
import pytest
from msgspec.structs import replace

from kandev_host.errors import Unavailable
from kandev_host.events import event
from kandev_host.interfaces import Put, Store, Upkeep
from kandev_host.models import Task, User
from kandev_host.testing.world import BOARD, TASK, USER, a_task, a_world, write

HASH = "a-hash-of-a-password"


class StorePlace(msgspec.Struct, frozen=True):
    """Where a store is kept: how it is opened, and its upkeep."""

    open: Callable[[], AbstractAsyncContextManager[Store]]
    upkeep: Upkeep


class Ended(Exception):
    """Of a `progress` that will not go on."""


def going_on(_what: str, _done: int, _whole: int) -> None:
    """A `progress` that says nothing."""


def ending(_what: str, _done: int, _whole: int) -> None:
    raise Ended


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.anyio
class UpkeepContract:
    """The tests. They use only what `Upkeep` and `Store` promise."""

    async def test_a_copy_holds_what_was_there_and_nothing_that_came_later(
        self, place: StorePlace, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        async with place.open() as store:
            await a_world(store)
            (seq,) = await write(store, event("test", {}))
            await anyio.to_thread.run_sync(place.upkeep.back_up, copy, going_on)
            await write(store, Put(a_task("later")), event("test", {}))
        report = place.upkeep.inspect(going_on, copy=copy)
        assert report.problems == []
        assert report.head == seq
        assert place.upkeep.inspect(going_on).head == seq + 1
        async with place.upkeep.open_copy(copy) as copied:
            assert (await copied.find(Task)).rows == [TASK]

    async def test_a_copy_is_its_owners_and_has_no_hash_of_a_password(self, place: StorePlace, tmp_path: Path) -> None:
        plain, whole = tmp_path / "plain", tmp_path / "whole"
        async with place.open() as store:
            await write(store, Put(replace(USER, password_hash=HASH)))
        place.upkeep.back_up(plain, going_on)
        place.upkeep.back_up(whole, going_on, with_secrets=True)
        assert plain.stat().st_mode & 0o777 == 0o600
        assert (HASH.encode() in plain.read_bytes(), HASH.encode() in whole.read_bytes()) == (
            False,
            True,
        )
        async with place.upkeep.open_copy(plain) as copied:
            assert await copied.get(User, USER.id) == USER

    async def test_what_progress_ends_leaves_nothing(self, place: StorePlace, tmp_path: Path) -> None:
        async with place.open() as store:
            await a_world(store)
        before = files(tmp_path)
        with pytest.raises(Ended):
            place.upkeep.back_up(tmp_path / "copy", ending)
        assert files(tmp_path) == before

    async def test_a_copy_takes_the_place_of_the_store_and_that_can_be_undone(
        self, place: StorePlace, tmp_path: Path
    ) -> None:
        first, again = tmp_path / "first", tmp_path / "again"
        async with place.open() as store:
            await a_world(store)
            place.upkeep.back_up(first, going_on)
            await write(store, Put(replace(BOARD, name="Later")))
            ids = {(await store.journal_state()).journal_id}
        kept = place.upkeep.replace(first)
        async with place.open() as store:
            assert await store.get(type(BOARD), BOARD.id) == BOARD
            ids.add((await store.journal_state()).journal_id)
        assert kept is not None
        place.upkeep.back_up(again, going_on, source=kept)
        place.upkeep.replace(again)
        async with place.open() as store:
            assert await store.get(type(BOARD), BOARD.id) == replace(BOARD, name="Later")
            ids.add((await store.journal_state()).journal_id)
        assert len(ids) == 3

    async def test_where_there_was_none_a_copy_becomes_the_store(self, place: StorePlace, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        assert (place.upkeep.size_bytes(), place.upkeep.log_bytes()) == (None, None)
        async with place.upkeep.open_copy(copy) as store:
            await a_world(store)
        assert place.upkeep.replace(copy) is None
        async with place.open() as store:
            assert await store.get(Task, TASK.id) == TASK

    async def test_what_is_no_copy_is_refused(self, place: StorePlace, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.write_text("something else\n" * 1000)
        with pytest.raises(Unavailable):
            place.upkeep.inspect(going_on, copy=other)
        with pytest.raises(Unavailable):
            place.upkeep.back_up(tmp_path / "copy", going_on, source=other)
        with pytest.raises(Unavailable):
            place.upkeep.inspect(going_on)

    async def test_a_vacuum_loses_nothing(self, place: StorePlace) -> None:
        async with place.open() as store:
            await a_world(store)
        before = place.upkeep.inspect(going_on).counts
        place.upkeep.vacuum(going_on)
        assert place.upkeep.inspect(going_on).counts == before
