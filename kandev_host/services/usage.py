"""What tasks and agents used: sums in which the unknown stays unknown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

from kandev_host.interfaces import Store
from kandev_host.models import Turn, Usage
from kandev_host.protocol.actions.agents import UsageTotals
from kandev_host.services.rows import every

KINDS = (
    "input_tokens",
    "output_tokens",
    "thought_tokens",
    "cached_read_tokens",
    "cached_write_tokens",
    "total_tokens",
)


def totals(rows: Iterable[Usage], turns: int) -> UsageTotals:
    """Tokens by kind (None where no turn reported them), cost by currency as exact decimals."""
    sums: dict[str, int | None] = dict.fromkeys(KINDS)
    cost: defaultdict[str, Decimal] = defaultdict(Decimal)
    priced = set()
    for row in rows:
        for kind in KINDS:
            value: int | None = getattr(row, kind)
            if value is not None:
                sums[kind] = (sums[kind] or 0) + value
        if row.cost is not None and row.currency is not None:
            cost[row.currency] += Decimal(row.cost)
            priced.add(row.turn_id)
    amounts = {currency: format(amount, "f") for currency, amount in sorted(cost.items())}
    return UsageTotals(turns=turns, cost=amounts, unpriced_turns=max(turns - len(priced), 0), **sums)


class UsageService:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def of_agent(self, agent_id: str) -> UsageTotals:
        return await self._of("agent_id", agent_id)

    async def of_task(self, task_id: str) -> UsageTotals:
        return await self._of("task_id", task_id)

    async def _of(self, field: str, id: str) -> UsageTotals:
        rows = [row async for row in every(self._store, Usage, [(field, "=", id)])]
        turns = await self._store.count(Turn, [(field, "=", id), ("state", "in", ("ended", "failed", "cancelled"))])
        return totals(rows, turns)
