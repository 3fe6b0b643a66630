"""A price only where the agent tells none, and where it is known how much of which model was used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_host.interfaces import Price, Use
from kandev_host.models import Usage
from kandev_host.sessions import pricing
from kandev_host.sessions.pricing import Pricing, uses_of
from kandev_host.sessions.supervisor import AgentSupervisor

pytestmark = pytest.mark.anyio
ROW = Usage(
    turn_id="t", agent_id="a", task_id="k", source="agent", model="known", input_tokens=10, output_tokens=2,
    total_tokens=12,
)  # fmt: skip
TOKENS = {"totalTokens": 12, "inputTokens": 10, "outputTokens": 2}
MODEL = {"id": "m", "category": "model", "currentValue": "known", "options": []}


class Listed:
    """A cent a token for `known`; waits at the gate if there is one."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.gate.set()
        self.asked: list[Use] = []

    async def price(self, use: Use, at: datetime) -> Price | None:
        self.asked.append(use)
        await self.gate.wait()
        if use.model == "broken":
            raise RuntimeError("a plugin's own fault")
        return Price(f"{(use.input_tokens + use.output_tokens) / 100}", "USD") if use.model == "known" else None


@pytest.fixture
def listed() -> Listed:
    return Listed()


@pytest.fixture
async def priced_world(world: Any, listed: Listed) -> AsyncIterator[Any]:
    """A world whose supervisor knows prices."""
    priced = Pricing(listed, world.store, world.journal).priced
    async with AgentSupervisor(world.journal, world.broker, world.settings, priced=priced) as supervisor:
        world.supervisor = supervisor
        yield world


async def turn(world: Any, agent_id: str, *steps: dict[str, Any], text: str = "done") -> None:
    await world.prompt(agent_id, [*steps, {"text": text}])
    await world.until("acp.result", lambda payload: payload["summary"] == text)


async def test_a_turn_without_a_cost_gets_its_price(priced_world: Any) -> None:
    agent_id = await priced_world.start({"new": {"configOptions": [MODEL]}})
    await turn(priced_world, agent_id, {"usage": TOKENS})
    row = await priced_world.usage()
    assert (row.cost, row.currency, row.priced_by) == ("0.12", "USD", "prices")
    assert priced_world.payloads("acp.result")[0]["usage"]["cost"] == "0.12"


async def test_what_the_agent_tells_is_not_priced(priced_world: Any, listed: Listed) -> None:
    told = {"sessionUpdate": "usage_update", "used": 1, "size": 9, "cost": {"amount": 0.5, "currency": "EUR"}}
    agent_id = await priced_world.start({"new": {"configOptions": [MODEL]}})
    await turn(priced_world, agent_id, {"update": told}, {"usage": TOKENS})
    row = await priced_world.usage()
    assert (row.cost, row.currency, row.priced_by) == ("0.5", "EUR", "agent")
    assert listed.asked == []


@pytest.mark.parametrize("model", ["unknown", "broken"])
async def test_an_unknown_model_is_unpriced(priced_world: Any, model: str) -> None:
    agent_id = await priced_world.start({"new": {"configOptions": [{**MODEL, "currentValue": model}]}})
    await turn(priced_world, agent_id, {"usage": TOKENS})
    row = await priced_world.usage()
    assert (row.total_tokens, row.cost, row.priced_by) == (12, None, None)


async def test_a_cost_told_while_the_price_is_looked_up_goes_before_it(priced_world: Any, listed: Listed) -> None:
    told = {"sessionUpdate": "usage_update", "used": 1, "size": 9, "cost": {"amount": 0.5, "currency": "EUR"}}
    listed.gate = anyio.Event()
    agent_id = await priced_world.start({"new": {"configOptions": [MODEL]}})
    await priced_world.until_idle()
    await priced_world.prompt(agent_id, [{"usage": TOKENS}, {"text": "done"}, {"after": [{"update": told}]}])
    await priced_world.until("acp.status", lambda payload: "update" in payload)
    listed.gate.set()
    await priced_world.until("acp.result")
    row = await priced_world.usage()
    assert (row.cost, row.currency, row.priced_by) == ("0.5", "EUR", "agent")


async def test_a_price_that_comes_too_late_is_written_with_the_next(
    world: Any, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kandev_host.interfaces import Put

    prices = Pricing(listed, world.store, world.journal)
    first, second = replace(ROW, id="1", turn_id="1"), replace(ROW, id="2", turn_id="2")
    await world.journal.record(Put(first))
    listed.gate = anyio.Event()
    monkeypatch.setattr(pricing, "PRICE_S", 0.05)
    assert await prices.priced(first) is first
    listed.gate.set()
    monkeypatch.setattr(pricing, "PRICE_S", 20.0)
    assert (await prices.priced(second)).cost == "0.12"
    assert (await world.store.get(Usage, "1")).cost == "0.12"


@pytest.mark.parametrize(
    "changed",
    [
        {"model": None},
        {"input_tokens": None},
        {"output_tokens": None},
        {"cost": "0", "currency": "USD"},
        {"cached_read_tokens": 4, "labels": {"prompt_usage.tokens": "unclear"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_not_known_is_not_priced(changed: dict[str, Any]) -> None:
    assert uses_of(replace(ROW, **changed)) == []


def test_without_parts_counts_are_plain_even_where_there_is_no_total() -> None:
    """As gemini tells them."""
    assert len(uses_of(replace(ROW, labels={"meta_quota.tokens": "unclear"}))) == 1


@pytest.mark.parametrize(("second", "cost"), [("known", "0.24"), ("auto", None)])
async def test_of_several_models_all_are_priced_or_none(
    world: Any, listed: Listed, second: str, cost: str | None
) -> None:
    """gemini lists them, and some as `auto`."""
    count = {"input_tokens": 10, "output_tokens": 2}
    quota = {"model_usage": [{"model": "known", "token_count": count}, {"model": second, "token_count": count}]}
    row = await Pricing(listed, world.store, world.journal).priced(replace(ROW, raw={"meta_quota": quota}))
    assert row.cost == cost
