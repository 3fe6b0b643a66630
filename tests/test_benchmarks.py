"""Rows of jails, shells and workspaces can be measured, or say what they lack: else nobody sees that one has broken."""

from __future__ import annotations

import pytest

from benchmarks import jail, looks, shell
from benchmarks.__main__ import ROWS, table
from benchmarks.measure import Row
from benchmarks.slopes import Series

JAILED = [row for row in ROWS if row in (*jail.ROWS, *shell.ROWS, *looks.ROWS)]


@pytest.mark.parametrize("row", JAILED, ids=lambda row: row.name)
def test_a_row_is_measured_or_says_what_is_missing(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {jail: ("SPAWNS", "SRT_SPAWNS"), shell: ("COMMANDS", "EXECS"), looks: ("RUNS", "SNAPSHOTS")}
    for module, names in counts.items():
        for name in names:
            monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(shell, "BYTES", 100_000)
    if why := row.missing():
        assert why in table([], [(row, why)])
        return
    with row.setup() as (ours, floor):
        assert ours() > 0
        assert floor() > 0


def test_there_is_a_row_for_each_comparison_that_was_promised() -> None:
    names = {row.name for row in ROWS}
    assert {"jail_spawn", "shell_command", "output_stream", "jail_vs_srt", "shell_vs_docker"} <= names
    assert {"shell_run", "snapshot"} <= names


def test_the_daemon_that_is_measured_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shell.SOCKET, raising=False)
    assert shell.docker("version") == ["docker", "version"]
    monkeypatch.setenv(shell.SOCKET, "/somewhere/docker.sock")
    assert shell.docker("version") == ["docker", "--host", "unix:///somewhere/docker.sock", "version"]


@pytest.mark.parametrize(
    ("values", "leaks"),
    [
        ([18] * 40, False),
        ([18, 19, 18, 20] * 10, False),
        ([50, 40, 30, 20, *[18] * 20], False),  # what the start leaves goes in time
        ([18] * 39 + [90], False),  # one that was in the way
        ([10 + at for at in range(40)], True),
        ([18 + at // 2 for at in range(40)], True),
        ([18] * 8 + [40] * 32, False),  # a pool that was filled once, in the beginning
        ([200 + 18 * (at % 3) for at in range(40)], False),
    ],
)
def test_a_leak_is_what_rises_from_third_to_third(values: list[float], leaks: bool) -> None:
    series = Series("descriptors", "", list(enumerate(values)), max(values), 6.0)
    assert series.leaks is leaks
    told = Series("rss", "MiB", list(enumerate(values)), max(values), None)
    assert not told.leaks
    assert told.plain()["per_hour"] == series.per_hour


def test_a_slope_is_told_per_hour() -> None:
    assert Series("rss", "MiB", [(at, 5 + at / 10) for at in range(100)], 15, None).per_hour == pytest.approx(360)
    assert Series("rss", "MiB", [(0, 5)], 5, None).per_hour == 0
