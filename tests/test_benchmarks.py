"""Rows of jails, shells and workspaces can be measured, or say what they lack: else nobody sees that one has broken."""

from __future__ import annotations

import pytest

from benchmarks import jail, looks, shell
from benchmarks.__main__ import ROWS, table
from benchmarks.measure import Row

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
