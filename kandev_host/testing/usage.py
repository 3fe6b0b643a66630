"""What every Store must do about usage; part of `StoreContract`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kandev_host.errors import KandevError, ValidationFailed
from kandev_host.interfaces import Commit, Put, Store, UsageSum
from kandev_host.models import Usage, new_id
from kandev_host.testing.world import write


def a_use(**fields: Any) -> Usage:
    """The row of a turn of its own."""
    return Usage(**{"turn_id": new_id(), "agent_id": "a", "task_id": "t", "source": "agent", **fields})


def day(number: int, hour: int = 12) -> datetime:
    return datetime(2026, 1, number, hour, tzinfo=UTC)


@pytest.mark.anyio
class UsageContract:
    """The tests. They use only what `Store` promises."""

    async def test_the_sum_of_nothing_knows_nothing(self, store: Store) -> None:
        assert await store.usage_sums() == [
            UsageSum(key=None, turns=0, cost={}, unpriced_turns=0, unreported_turns=0)
        ]  # fmt: skip
        assert await store.usage_sums(group_by="day") == []

    async def test_in_sums_the_unknown_stays_unknown_and_is_counted(self, store: Store) -> None:
        rows = [
            a_use(input_tokens=3, total_tokens=5, cost="0.1", currency="USD", wall_ms=100, waited_ms=40),
            a_use(input_tokens=4, cost="0.2", currency="USD", wall_ms=50),
            a_use(cost="7", currency="EUR"),
            a_use(),
        ]
        await write(store, *map(Put, rows))
        assert await store.usage_sums() == [
            UsageSum(
                key=None, turns=4, input_tokens=7, total_tokens=5, cost={"EUR": "7", "USD": "0.3"}, unpriced_turns=1,
                unreported_turns=2, wall_ms=150, waited_ms=40,
            )
        ]  # fmt: skip

    async def test_a_gateways_row_beats_the_agents(self, store: Store) -> None:
        agents = a_use(input_tokens=3, thought_tokens=1, cost="1", currency="USD", wall_ms=100)
        gateways = a_use(turn_id=agents.turn_id, source="gateway", input_tokens=4, cost="2", currency="USD")
        await write(store, Put(agents), Put(gateways), Put(a_use(input_tokens=10)))
        (found,) = await store.usage_sums()
        assert (found.turns, found.input_tokens, found.thought_tokens, found.cost) == (2, 14, None, {"USD": "2"})
        assert found.wall_ms == 100, "only the agent's row knows how long the turn took"

    async def test_a_turn_has_one_row_of_a_source(self, store: Store) -> None:
        first = a_use()
        await write(store, Put(first))
        (outcome,) = await store.commit([Commit([Put(a_use(turn_id=first.turn_id))])])
        assert isinstance(outcome, KandevError)
        assert await store.count(Usage) == 1

    @pytest.mark.parametrize(
        ("group_by", "keys"),
        [
            ("day", ["2026-01-03", "2026-01-02"]),
            ("agent_type", ["claude", None, "demo"]),
            ("model", [None, "m"]),
            ("task", ["t", "other"]),
        ],
    )
    async def test_sums_are_by_group_the_most_turns_or_the_newest_day_first(
        self, store: Store, group_by: Any, keys: list[str | None]
    ) -> None:
        rows = [
            a_use(created_at=day(2, 0), agent_type="claude"),
            a_use(created_at=day(2, 23), agent_type="claude"),
            a_use(created_at=day(3, 0), agent_type="demo", task_id="other"),
            a_use(created_at=day(3), model="m"),
        ]
        await write(store, *map(Put, rows))
        found = await store.usage_sums(group_by=group_by)
        assert sorted(each.key or "" for each in found) == sorted(key or "" for key in keys)
        assert found[0].key == keys[0]
        assert sum(each.turns for each in found) == 4
        assert [each.key for each in await store.usage_sums(group_by=group_by, limit=1)] == keys[:1]

    async def test_sums_are_of_the_rows_that_meet_every_condition(self, store: Store) -> None:
        rows = [a_use(created_at=day(n), board_id=f"b{n % 2}", agent_id=f"a{n}", total_tokens=n) for n in range(1, 6)]
        await write(store, *map(Put, rows))
        (found,) = await store.usage_sums([("board_id", "=", "b1"), ("created_at", ">=", day(2))])
        assert (found.turns, found.total_tokens) == (2, 8)
        (found,) = await store.usage_sums([("agent_id", "=", "a4"), ("created_at", "<", day(4))])
        assert (found.turns, found.total_tokens) == (0, None)

    async def test_sums_of_what_is_no_field_or_no_group_are_refused(self, store: Store) -> None:
        with pytest.raises(ValidationFailed):
            await store.usage_sums([("raw", "=", "x")])
        with pytest.raises(ValidationFailed):
            await store.usage_sums(group_by="colour")  # type: ignore[arg-type]
