"""The soak of a night (`make soak`), as short as can be: so many of each operation, and the same once more."""

from __future__ import annotations

import time

import pytest

from benchmarks import soak as soak_module
from benchmarks.soak import SERIES, noticed, soaking, table

pytestmark = pytest.mark.anyio

LOOK_S = 0.2
DEADLINE_S = 60
HELD = ("descriptors", "tasks", "processes")
SLACK = 2  # the host has work of its own, now and then
TIMES = SLACK + 1  # so that one that each operation of a kind leaves is more than that


@pytest.mark.timeout(600)
async def test_p20_what_comes_and_goes_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents with clones, shells, sockets, sessions, scrapes, looks and backups, beside hostile clients.

    What is held after N of each, and again after 2N, is the same. Memory is told, not judged: it grows with what is
    stored, and an allocator gives back when it likes.
    """
    monkeypatch.setattr(soak_module, "LOOK_S", LOOK_S)
    with soaking() as soak:
        await soak.load.times(TIMES)
        before = await soak.rest()
        await soak.load.times(TIMES)
        after, deadline = await soak.rest(), time.monotonic() + DEADLINE_S
        while left(before, after) and time.monotonic() < deadline:
            after = await soak.rest()
        assert left(before, after) == {}
        soak.at_rest += [(0.0, before), (1.0, after)]
        kinds = ("agent", "back_up", "look", "scrape", "session", "shell", "socket")
        assert soak.load.done == dict.fromkeys(kinds, 2 * TIMES)
        assert all(name in table(soak.series()) for name in SERIES)
        assert "p99" in noticed(soak.load.latencies_s)


def left(before: soak_module.Look, after: soak_module.Look) -> dict[str, float]:
    """By how much what is held has grown beyond the slack."""
    return {name: after[name] - before[name] for name in HELD if after[name] > before[name] + SLACK}
