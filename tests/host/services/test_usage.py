"""usage.summary: filters, groups, times, and what outlives what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Put, Remove
from kandev_host.models import Task
from kandev_host.protocol.acp import Cost
from kandev_host.protocol.actions.usage import UsageSummary
from kandev_host.testing.usage import a_use, day
from kandev_host.testing.world import AGENT, BOARD, TASK, a_world, write

pytestmark = pytest.mark.anyio
ME: Any = None  # it sums for whoever may read


async def test_a_summary_has_the_groups_and_the_sum_of_all(house: Any) -> None:
    rows = [
        a_use(created_at=day(1), model="m", total_tokens=3, cost="0.1", currency="USD", wall_ms=1500, waited_ms=500),
        a_use(created_at=day(2), model="m", total_tokens=4, cost="0.2", currency="USD"),
        a_use(created_at=day(2), model="n"),
    ]
    await write(house.store, *map(Put, rows))
    reply = await house.usage.summary(ME, UsageSummary(group_by="model"))
    assert [(group.key, group.turns, group.total_tokens, group.cost) for group in reply.groups] == [
        ("m", 2, 7, {"USD": "0.3"}),
        ("n", 1, None, {}),
    ]
    total = reply.total
    assert (total.turns, total.unpriced_turns, total.unreported_turns) == (3, 1, 1)
    assert (total.wall_s, total.waiting_s) == (1.5, 0.5)


async def test_since_is_included_and_until_is_not(house: Any) -> None:
    await write(house.store, *(Put(a_use(created_at=day(n), total_tokens=n)) for n in (1, 2, 3)))
    request = UsageSummary(since=day(2), until=day(3), group_by="day")
    reply = await house.usage.summary(ME, request)
    assert [(group.key, group.total_tokens) for group in reply.groups] == [("2026-01-02", 2)]


async def test_the_limit_cuts_the_groups_and_not_the_total(house: Any) -> None:
    await write(house.store, *(Put(a_use(created_at=day(n), total_tokens=1)) for n in range(1, 10)))
    reply = await house.usage.summary(ME, UsageSummary(group_by="day", limit=2))
    assert [group.key for group in reply.groups] == ["2026-01-09", "2026-01-08"]
    assert reply.total.total_tokens == 9


async def test_a_time_that_ends_before_it_begins_is_refused(house: Any) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await house.usage.summary(ME, UsageSummary(since=day(2), until=day(2)))
    assert refused.value.details["field"] == "until"


async def test_usage_outlives_its_task(house: Any) -> None:
    await a_world(house.store)
    before = await house.usage.summary(ME, UsageSummary(task_id=TASK.id))
    await write(house.store, Remove(Task, TASK.id))
    for request in (UsageSummary(task_id=TASK.id), UsageSummary(board_id=BOARD.id), UsageSummary(agent_id=AGENT.id)):
        assert await house.usage.summary(ME, request) == before
    assert before.total.cost == {"USD": "0.10"}


async def test_an_agents_totals_count_a_turn_once(house: Any) -> None:
    first = a_use(agent_id=AGENT.id, total_tokens=3, cost="1", currency="USD")
    gateways = a_use(turn_id=first.turn_id, agent_id=AGENT.id, source="gateway", cost="2", currency="USD")
    await write(house.store, Put(first), Put(gateways))
    found = await house.usage.of_agent(AGENT.id)
    assert (found.cost, found.total_tokens) == ({"USD": "2"}, None)


async def test_where_a_session_stood_is_what_its_agent_told_last(house: Any) -> None:
    told = [
        {"usage_update": {"used": 1, "cost": {"amount": 0.004272, "currency": "USD"}}},
        {"prompt_usage": {"totalTokens": 7, "inputTokens": 5, "outputTokens": 2}, "usage_update": {"used": 3}},
        {"prompt_usage": {"totalTokens": 0}},
    ]
    rows = [a_use(agent_id="x", raw=raw, created_at=day(1) + timedelta(hours=n)) for n, raw in enumerate(told)]
    await write(house.store, *map(Put, rows))
    found = await house.usage.standing(["x"])
    assert found.cost == Cost(amount=found.cost.amount, currency="USD")
    assert str(found.cost.amount) == "0.004272"
    assert found.tokens["total_tokens"] == 7
    nothing = await house.usage.standing(["y"])
    assert (nothing.cost, dict(nothing.tokens)) == (None, {})
