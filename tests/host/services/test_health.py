"""The health of the host: what makes it degraded, and whether its writer answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.bus import MemoryBus
from kandev_host.errors import Busy, KandevError, StorageFull
from kandev_host.events import event
from kandev_host.interfaces import Availability, Commit, JournalState
from kandev_host.journal import Journal
from kandev_host.services import health as module
from kandev_host.services.health import Health, Problem
from kandev_host.services.watched import WatchedBus, WatchedStore, Writes

pytestmark = pytest.mark.anyio
DEADLINE_S = 30.0


class Store:
    """Answers what `outcome` says: nothing for ever, an error, or the seqs."""

    def __init__(self) -> None:
        self.outcome: KandevError | None = None
        self.gate = anyio.Event()
        self.gate.set()

    async def journal_state(self) -> JournalState:
        return JournalState("j", 0, 1)

    async def commit(self, commits: Sequence[Commit]) -> list[list[int]]:
        await self.gate.wait()
        if self.outcome is not None:
            raise self.outcome
        return [[1] * len(commit.changes) for commit in commits]


class Place:
    """A runtime, of which only this much is looked at."""

    def __init__(self) -> None:
        self.found = Availability(True)
        self.gate = anyio.Event()
        self.gate.set()

    async def probe(self) -> Availability:
        await self.gate.wait()
        return self.found


class House:
    def __init__(self, folder: Path | None = None, needed: Sequence[str] = ("a",)) -> None:
        self.store, self.writes = Store(), Writes()
        self.places = {"a": Place(), "b": Place()}
        self.problems: list[Problem] = []
        self.low_bytes = 1
        self.folder, self.needed = folder, needed
        self.journal: Journal
        self.health: Health

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[House]:
        store: Any = WatchedStore(self.store, self.writes)  # type: ignore[arg-type]
        places: Any = self.places
        async with Journal(store, WatchedBus(MemoryBus())) as self.journal:
            self.health = Health(
                self.journal,
                places,
                writes=self.writes,
                needed=self.needed,
                folder=self.folder,
                low_bytes=lambda: self.low_bytes,
                others=lambda: self.problems,
            )
            yield self

    def parts(self) -> list[str]:
        return [problem.part for problem in self.health.problems()]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await anyio.sleep(0.01)


async def test_a_writer_that_hangs_answers_no_pulse_and_one_that_refuses_does() -> None:
    async with House().opened() as house:
        assert await house.health.pulse()
        house.store.gate = anyio.Event()
        assert not await house.health.pulse(0.05)
        assert house.parts() == ["store"]
        house.store.gate.set()
        house.store.outcome = Busy("held")
        assert await house.health.pulse()


async def test_a_journal_that_is_closed_answers_with_its_refusal() -> None:
    async with House().opened() as house:
        pass
    assert await house.health.pulse()


async def test_writes_that_fail_are_told_until_one_goes_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async with House().opened() as house:
        assert house.health.status == "ok"
        house.store.outcome = StorageFull("full")
        with pytest.raises(StorageFull):
            await house.journal.record(event("x", {}))
        assert house.health.status == "degraded"
        assert "full" in house.health.problems()[0].message
        house.store.outcome = None
        await house.health.pulse()
        assert house.health.status == "degraded", "a look writes nothing, so it shows nothing"
        await house.journal.record(event("x", {}))
        assert (house.health.status, house.writes.committed_at is None) == ("ok", False)
        house.store.outcome = StorageFull("full")
        with pytest.raises(StorageFull):
            await house.journal.record(event("x", {}))
        house.writes.failed_s = time.monotonic() - module.FAILURE_KEPT_S - 1
        assert house.health.status == "ok", "nobody has written for a minute"


async def test_a_disk_without_room_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "LOW_SHARE", 1)
    async with House(tmp_path).opened() as house, house.health:
        await until(lambda: house.health.disk is not None)
        assert house.parts() == []
        house.low_bytes = 1 << 62  # more than there is
        await until(lambda: house.parts() == ["disk"])
        assert "make room" in (house.health.problems()[0].fix or "")
        house.low_bytes = 1
        await until(lambda: house.parts() == [])


async def test_a_runtime_counts_when_it_is_needed_or_was_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 0.05)
    async with House().opened() as house:
        gone = Availability(False, "no engine", "start it")
        house.places["b"].found = gone
        await house.health.probe()
        assert house.parts() == [], "b was never there, and nobody asked for it"
        house.places["a"].found = gone
        await house.health.probe()
        assert [(each.part, each.fix) for each in house.health.problems()] == [("runtime", "start it")]
        house.places["a"].found = house.places["b"].found = Availability(True)
        await house.health.probe()
        assert house.parts() == []
        house.places["b"].gate = anyio.Event()  # hangs
        found = await house.health.probe()
        assert (found["a"].ok, found["b"].ok) == (True, False)
        assert "does not answer" in house.health.problems()[0].message


async def test_what_other_parts_know_of_themselves_counts() -> None:
    async with House().opened() as house:
        house.problems = [Problem("backup", "no room")]
        assert house.health.status == "degraded"


async def test_the_bus_tells_how_late_it_is_and_how_many_listen() -> None:
    bus = WatchedBus(MemoryBus())
    assert (bus.lag_s, bus.subscriptions) == (None, 0)
    one = bus.subscribe(["a", "b"], lambda _event: None)
    bus.publish([event("x", {})])
    assert bus.lag_s is not None
    assert (bus.subscriptions, one.close(), bus.subscriptions) == (1, None, 0)
