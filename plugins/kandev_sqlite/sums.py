"""Sums over usage: one statement, a group a row, costs added exactly by an aggregate of our own."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any

import apsw
import msgspec

from kandev_host import UsageGroup, UsageSum, errors, models
from kandev_sqlite.mapper import mapper
from kandev_sqlite.query import Sql, Where, conditions

TOKENS = (
    "input_tokens", "output_tokens", "thought_tokens", "cached_read_tokens", "cached_write_tokens", "total_tokens",
)  # fmt: skip
# Days are whole in UTC; times are stored in microseconds.
KEYS: dict[UsageGroup | None, str] = {
    None: "NULL",
    "day": "strftime('%Y-%m-%d', created_at / 1000000, 'unixepoch')",
    "agent_type": "agent_type",
    "model": "model",
    "task": "task_id",
}
_exact = Context(prec=200)

# Of a turn with a row of its gateway the agent's does not count; but only the agent's knows how long it took.
_ONCE = (
    "(source = 'gateway' OR NOT EXISTS (SELECT 1 FROM usage g WHERE g.turn_id = u.turn_id AND g.source = 'gateway'))"
)
_TIME = "sum(coalesce({0}, (SELECT a.{0} FROM usage a WHERE a.turn_id = u.turn_id AND a.source = 'agent')))"
_SUMS = ", ".join(
    [
        "count(*)",
        *(f"sum({field})" for field in TOKENS),
        "decimal_sums(cost, currency)",
        "count(*) FILTER (WHERE cost IS NULL OR currency IS NULL)",
        f"count(*) FILTER (WHERE coalesce({', '.join(TOKENS)}) IS NULL)",
        _TIME.format("wall_ms"),
        _TIME.format("waited_ms"),
    ]
)


class DecimalSums:
    """The aggregate `decimal_sums(amount, currency)`: exact sums as JSON, by currency; the unknown adds nothing."""

    def __init__(self) -> None:
        self._sums: dict[str, Decimal] = {}

    def step(self, *values: apsw.SQLiteValue) -> None:
        amount, currency = values
        if isinstance(amount, str) and isinstance(currency, str):
            self._sums[currency] = _exact.add(self._sums.get(currency, Decimal()), Decimal(amount))

    def final(self) -> str:
        amounts = {currency: format(amount, "f") for currency, amount in sorted(self._sums.items())}
        return msgspec.json.encode(amounts).decode()


def add_functions(connection: apsw.Connection) -> None:
    """What `usage_sums` needs of a connection."""
    connection.create_aggregate_function("decimal_sums", DecimalSums, 2)


def statement(where: Where, group_by: UsageGroup | None, limit: int) -> Sql:
    """Days newest first, others by most turns. Raises `ValidationFailed` for a condition that cannot be."""
    if group_by not in KEYS:
        raise errors.ValidationFailed("group_by", f"Usage is not grouped by {group_by!r}")
    chosen, values = conditions(mapper(models.Usage), where)
    order = "1 DESC" if group_by == "day" else "2 DESC, 1"
    grouped = "" if group_by is None else f" GROUP BY 1 ORDER BY {order} LIMIT {limit}"
    return f"SELECT {KEYS[group_by]}, {_SUMS} FROM usage u WHERE {chosen} AND {_ONCE}{grouped}", values  # noqa: S608


def usage_sums(db: apsw.Connection, statement: Sql) -> list[UsageSum]:
    """The rows of a statement."""
    return [_sum(row) for row in db.execute(*statement)]


def _sum(row: Sequence[Any]) -> UsageSum:
    key, turns, *tokens, cost, unpriced, unreported, wall_ms, waited_ms = row
    return UsageSum(
        key=key,
        turns=turns,
        **dict(zip(TOKENS, tokens, strict=True)),
        cost=msgspec.json.decode(cost),
        unpriced_turns=unpriced,
        unreported_turns=unreported,
        wall_ms=wall_ms,
        waited_ms=waited_ms,
    )
