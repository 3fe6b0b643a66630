"""`kandev-host usage`: the table and its bars."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.cli.usage import _plain, bars, duration

UNKNOWN: dict[str, Any] = {
    "input_tokens": None, "output_tokens": None, "thought_tokens": None, "cached_read_tokens": None,
    "cached_write_tokens": None, "total_tokens": None, "cost": {}, "unpriced_turns": 0, "unreported_turns": 0,
    "wall_s": None, "waiting_s": None,
}  # fmt: skip


def sums(key: str | None, turns: int, **fields: Any) -> dict[str, Any]:
    return {**UNKNOWN, "key": key, "turns": turns, **fields}


GROUPS = [
    sums(
        "2026-01-03", 2, input_tokens=12_345, output_tokens=67, cached_read_tokens=400, cached_write_tokens=10,
        cost={"USD": "0.0238"}, wall_s=3723.4, waiting_s=61.0,
    ),
    sums("2026-01-02", 1, input_tokens=5, output_tokens=2, cost={"USD": "0.01"}, wall_s=4.25),
    sums(None, 1, cost={"USD": "0"}, unreported_turns=1),
]  # fmt: skip
TOTAL = sums(None, 4, input_tokens=12_350, output_tokens=69, cost={"USD": "0.0338"}, unpriced_turns=1)
GOLDEN = """\
DAY         TURNS  INPUT   CACHED  OUTPUT  COST        TIME     WAITED
2026-01-03  2      12,345  410     67      0.0238 USD  1:02:03  0:01:01  ████████████████████
2026-01-02  1      5       -       2       0.01 USD    4.2s     -        ████████▍
-           1      -       -       -       0 USD       -        -
total       4      12,350  -       69      0.0338 USD  -        -
"""


def test_the_table_with_its_bars(capsys: pytest.CaptureFixture[str]) -> None:
    _plain("day", GROUPS, {**TOTAL, "unreported_turns": 2})
    shown = capsys.readouterr()
    assert shown.out == GOLDEN
    assert shown.err == "Not in these sums: 1 turn without a cost, 2 turns without tokens.\n"


@pytest.mark.parametrize("cost", [{}, {"EUR": "9"}, {"EUR": "9", "USD": "1"}])
def test_bars_are_of_tokens_where_costs_cannot_be_compared(cost: dict[str, str]) -> None:
    groups = [sums("a", 1, input_tokens=3, output_tokens=1, cost={"USD": "1"}), sums("b", 1, input_tokens=8, cost=cost)]
    assert bars(groups) == ["█" * 10, "█" * 20]


def test_nothing_has_no_bars() -> None:
    assert bars([]) == []
    assert bars([sums("a", 1)]) == [""]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0.0, "0.0s"), (59.94, "59.9s"), (59.96, "0:01:00"), (60.0, "0:01:00"), (3600.0, "1:00:00")],
)
def test_a_time_is_shown_in_seconds_or_with_colons(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown
