"""The rows that measure a jail beside a container can be measured: else nobody sees that one has broken."""

from __future__ import annotations

import pytest

from benchmarks import beside
from benchmarks.measure import Row

from .conftest import IMAGE
from .dockerd import Dockerd


@pytest.mark.parametrize("row", beside.ROWS, ids=lambda row: row.name)
def test_a_row_is_measured(row: Row, dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(beside.SOCKET, dockerd.socket)
    monkeypatch.setattr(beside, "IMAGE", IMAGE)
    for name in ("SPAWNS", "COMMANDS", "TURNS", "AGENTS"):
        monkeypatch.setattr(beside, name, 1)
    for made in (beside.engine, beside.engine_pids):
        made.cache_clear()
    assert row.missing() is None
    with row.setup() as (ours, floor):
        assert ours() > 0
        assert floor() > 0
