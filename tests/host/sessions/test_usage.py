"""Usage: one source per turn, kept raw, nothing added up, unknown is None."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.anyio

TOKENS = {"totalTokens": 12, "inputTokens": 10, "outputTokens": 2, "cachedReadTokens": 4}


def cost(amount: float, currency: str = "USD", used: int = 5) -> dict[str, Any]:
    value = {"amount": amount, "currency": currency}
    return {"update": {"sessionUpdate": "usage_update", "used": used, "size": 100, "cost": value}}


async def run(world: Any, *turns: list[dict[str, Any]]) -> list[Any]:
    from kandev_host.models import Usage

    agent_id = await world.start()
    await world.until_idle()
    for n, steps in enumerate(turns):
        await world.prompt(agent_id, [*steps, {"text": f"turn {n}"}])
        await world.until("acp.result", lambda payload, n=n: payload["summary"] == f"turn {n}")
    return await world.rows(Usage)


async def test_tokens_of_the_answer_are_the_turns(world: Any) -> None:
    (row,) = await run(world, [{"usage": TOKENS}])
    assert (row.total_tokens, row.input_tokens, row.output_tokens, row.cached_read_tokens) == (12, 10, 2, 4)
    assert (row.thought_tokens, row.cost, row.source) == (None, None, "agent")
    assert row.raw == {"prompt_usage": TOKENS}


async def test_the_result_carries_the_usage(world: Any) -> None:
    await run(world, [{"usage": TOKENS}])
    assert world.payloads("acp.result")[0]["usage"]["total_tokens"] == 12


async def test_an_agent_that_says_nothing_has_no_usage(world: Any) -> None:
    assert await run(world, []) == []


async def test_cumulative_cost_becomes_the_turns_difference(world: Any) -> None:
    rows = await run(world, [cost(0.1)], [cost(0.15), cost(0.3)])
    assert [(row.cost, row.currency, row.context_used) for row in rows] == [("0.1", "USD", 5), ("0.2", "USD", 5)]


@pytest.mark.parametrize("second", [cost(0.05), cost(0.5, "EUR")])
async def test_a_falling_or_foreign_cost_is_unknown(world: Any, second: Any) -> None:
    rows = await run(world, [cost(0.1)], [second])
    assert (rows[1].cost, rows[1].currency) == (None, None)
    assert rows[1].raw["usage_update"] == second["update"]


async def test_a_turn_that_says_nothing_of_cost_does_not_get_one(world: Any) -> None:
    rows = await run(world, [cost(0.1)], [{"usage": TOKENS}])
    assert rows[1].cost is None


async def test_a_report_that_comes_late_corrects_the_turn_before(world: Any) -> None:
    await run(world, [{"usage": TOKENS}, {"after": [cost(0.25)]}])
    await world.until("acp.status", lambda payload: "update" in payload)
    await world.supervisor.shutdown()
    row = await world.usage()
    assert (row.total_tokens, row.cost) == (12, "0.25")


async def test_geminis_quota_is_read_where_nothing_better_is(world: Any) -> None:
    quota = {
        "token_count": {"input_tokens": 7, "output_tokens": 3},
        "model_usage": [{"model": "gemini-x", "token_count": {"input_tokens": 7, "output_tokens": 3}}],
    }
    (row,) = await run(world, [{"meta": {"quota": quota}}])
    assert (row.input_tokens, row.output_tokens, row.total_tokens, row.model) == (7, 3, None, "gemini-x")
    assert row.raw == {"meta_quota": quota}


async def test_reports_of_several_model_calls_are_kept_and_not_added(world: Any) -> None:
    chunk = {
        "sessionUpdate": "agent_message_chunk",
        "content": {"type": "text", "text": ""},
        "_meta": {"usage": TOKENS},
    }
    rows = await run(world, [{"update": chunk}], [{"update": chunk}, {"update": chunk}])
    assert [row.total_tokens for row in rows] == [12, None]
    assert rows[1].raw == {"chunk_usage": [TOKENS, TOKENS]}


@pytest.mark.parametrize("bad", [{"totalTokens": -1}, {"totalTokens": "12"}, {"totalTokens": True}, {"else": 1}])
async def test_counts_that_are_none_stay_unknown(world: Any, bad: Any) -> None:
    (row,) = await run(world, [{"usage": bad}])
    assert row.total_tokens is None
    assert row.raw == {"prompt_usage": bad}
