"""Sums over usage are exact, and read by index."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.models import Usage
from kandev_host.testing.usage import a_use, day
from kandev_sqlite import sums
from kandev_sqlite.ladder import migrate
from kandev_sqlite.mapper import mapper

TURNS = 100_000
amounts = st.decimals(0, Decimal(10) ** 18, allow_nan=False, allow_infinity=False, places=9)


@given(st.lists(st.tuples(st.sampled_from(["USD", "EUR"]), amounts), max_size=30))
def test_sums_are_exact(costs: list[tuple[str, Decimal]]) -> None:
    connection = apsw.Connection(":memory:")
    sums.add_functions(connection)
    connection.execute("CREATE TABLE costs (amount TEXT, currency TEXT)")
    connection.executemany("INSERT INTO costs VALUES (?, ?)", [(format(cost, "f"), unit) for unit, cost in costs])
    found = msgspec.json.decode(connection.execute("SELECT decimal_sums(amount, currency) FROM costs").get)
    with localcontext(prec=200):
        for currency in ("USD", "EUR"):
            mine = [cost for unit, cost in costs if unit == currency]
            assert Decimal(found.get(currency, "0")) == sum(mine, Decimal())
    connection.close()


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path: Path = tmp_path_factory.mktemp("sums") / "kandev.db"
    connection = apsw.Connection(str(path))
    migrate(connection, path)
    sums.add_functions(connection)
    table = mapper(Usage)
    rows = (
        a_use(
            created_at=day(1 + n % 28), turn_id=f"u{n}", agent_id=f"a{n % 5000}", task_id=f"t{n % 1000}", cost="0.001",
            board_id=f"b{n % 50}", currency="USD", total_tokens=1, id=f"u{n}/agent", agent_type="demo",
        )
        for n in range(TURNS)
    )  # fmt: skip
    with connection:
        connection.executemany(table.upsert(1), map(table.encode, rows))
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ([("agent_id", "=", "a1")], "usage_agent (agent_id=?)"),
        ([("task_id", "=", "t1")], "usage_task (task_id=?)"),
        ([("board_id", "=", "b1")], "usage_board (board_id=?)"),
        ([("created_at", ">=", day(27))], "usage_created (created_at>?)"),
        ([("created_at", ">=", day(3)), ("created_at", "<", day(4))], "usage_created (created_at>? AND created_at<?)"),
        ([("board_id", "=", "b1"), ("created_at", ">=", day(27))], "usage_board (board_id=? AND created_at>?)"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(name for name, *_ in value),
)
@pytest.mark.parametrize("group_by", [None, "day", "model"])
def test_a_summary_of_100_000_turns_uses_its_index(db: apsw.Connection, where: Any, index: str, group_by: Any) -> None:
    sql, values = sums.statement(where, group_by, 100)
    steps = [str(row[3]) for row in db.execute("EXPLAIN QUERY PLAN " + sql, values)]
    assert f"SEARCH u USING INDEX {index}" in steps
    assert [step for step in steps if step.startswith("SCAN")] == []
    assert "SEARCH g USING COVERING INDEX usage_turn_source (turn_id=? AND source=?)" in steps


def test_a_summary_of_all_100_000_turns_is_right(db: apsw.Connection) -> None:
    (total,) = sums.usage_sums(db, sums.statement([], None, 1))
    assert (total.turns, total.total_tokens, total.cost) == (TURNS, TURNS, {"USD": "100.000"})
    days = sums.usage_sums(db, sums.statement([], "day", 100))
    assert [each.key for each in days] == [f"2026-01-{number:02}" for number in range(28, 0, -1)]
    assert sum(each.turns for each in days) == TURNS
