"""The soak of a night (`make soak`), as short as can be: one round to warm up, one to look at."""

from __future__ import annotations

import anyio
import pytest

from benchmarks import soak as soak_module
from benchmarks.soak import SERIES, noticed, soaking, table

pytestmark = pytest.mark.anyio

ROUND_S = 1.0
LOOK_S = 0.2
DEADLINE_S = 60
HELD = ("descriptors", "tasks", "processes")
SLACK = 2  # the host has work of its own, now and then


@pytest.mark.timeout(600)
async def test_p20_what_comes_and_goes_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents with clones, shells, sockets, sessions, scrapes, a backup and hostile clients."""
    monkeypatch.setattr(soak_module, "LOOK_S", LOOK_S)
    with soaking() as soak:
        await soak.load.round(ROUND_S)
        before = await soak.rest()
        await soak.load.round(ROUND_S)
        with anyio.fail_after(DEADLINE_S):
            after = await soak.rest()
            while [name for name in HELD if after[name] > before[name] + SLACK]:
                after = await soak.rest()
        soak.at_rest += [(0.0, before), (1.0, after)]
        assert set(soak.load.done) == {"agent", "back_up", "look", "scrape", "session", "shell", "socket"}
        assert all(name in table(soak.series()) for name in SERIES)
        assert "p99" in noticed(soak.load.latencies_s)
