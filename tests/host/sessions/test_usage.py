"""Usage: one row per turn, one source, kept raw and labelled; unknown is None."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from kandev_host.models import Turn, Usage, UsageReading
from kandev_host.protocol.acp import Cost, PromptResult, UsageUpdate
from kandev_host.sessions.usage import Standing, UsageBook, standing

pytestmark = pytest.mark.anyio

TOKENS = {"totalTokens": 12, "inputTokens": 10, "outputTokens": 2, "cachedReadTokens": 4}


def cost(amount: float, currency: str = "USD", used: int = 5) -> dict[str, Any]:
    value = {"amount": amount, "currency": currency}
    return {"update": {"sessionUpdate": "usage_update", "used": used, "size": 100, "cost": value}}


async def run(world: Any, *turns: list[dict[str, Any]], **agent_type: Any) -> list[Any]:
    agent_id = await world.start(**agent_type)
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


async def test_a_turn_of_which_the_agent_says_nothing_has_a_row_that_says_nothing(world: Any) -> None:
    (row,) = await run(world, [])
    assert (row.total_tokens, row.cost, row.raw, row.labels) == (None, None, {}, {})
    assert world.payloads("acp.result")[0]["usage"] is None


async def test_a_row_says_whose_it_is_and_how_long_the_turn_took(world: Any) -> None:
    (row,) = await run(world, [{"usage": TOKENS}])
    assert (row.board_id, row.agent_type, row.id) == (world.task.board_id, "scripted", f"{row.turn_id}/agent")
    assert row.wall_ms >= 0
    assert row.waited_ms == 0, "it asked nobody anything"


async def test_a_turn_that_was_cut_off_has_a_row_too(world: Any) -> None:
    agent_id = await world.start(prompt=[{"exit": 3}])
    await world.ended(agent_id)
    (row,) = await world.rows(Usage)
    assert (row.turn_id, row.total_tokens) == ((await world.turn()).id, None)


async def test_every_place_is_labelled_with_what_it_counts(world: Any) -> None:
    (row,) = await run(world, [cost(0.1), {"usage": TOKENS}])
    assert row.labels == {
        "prompt_usage": "per_turn",
        "usage_update.used": "context",
        "usage_update.cost": "cumulative",
    }
    assert row.priced_by == "agent"


ZEROS = {"totalTokens": 0, "inputTokens": 0, "outputTokens": 0}


async def test_a_report_of_zeros_is_no_report(world: Any) -> None:
    """opencode answers a cancelled turn so."""
    (row,) = await run(world, [{"usage": ZEROS}])
    assert (row.total_tokens, row.input_tokens, row.output_tokens) == (None, None, None)
    assert row.raw == {"prompt_usage": ZEROS}


async def test_cumulative_tokens_become_the_turns_difference(world: Any) -> None:
    """As vibe counts."""
    reading = UsageReading(tokens="cumulative")
    rows = await run(
        world, [{"usage": tokens(2468)}], [{"usage": ZEROS}], [{"usage": tokens(7404)}], [{"usage": tokens(1)}],
        usage=reading,
    )  # fmt: skip
    assert [row.total_tokens for row in rows] == [2468, None, 4936, None]
    assert rows[0].labels == {"prompt_usage": "cumulative"}


async def test_tokens_of_the_last_call_alone_are_not_the_turns(world: Any) -> None:
    """As opencode counts."""
    (row,) = await run(world, [{"usage": TOKENS}], usage=UsageReading(tokens="last_call"))
    assert (row.total_tokens, row.labels) == (None, {"prompt_usage": "context"})


def tokens(total: int) -> dict[str, int]:
    return {"totalTokens": total, "inputTokens": total, "outputTokens": 0}


def resumed(reading: UsageReading, where: Standing, *told: tuple[int | None, str | None]) -> list[Usage]:
    """The rows of turns of a resumed session: total tokens as answered, cost as in an update."""
    book = UsageBook(reading, board_id=None, agent_type="scripted")
    book.resume(where)
    rows = []
    for total, amount in told:
        book.begin_turn()
        if amount is not None:
            raw = b'{"used": 1, "cost": {"amount": %s, "currency": "USD"}}' % amount.encode()
            book.take_update(msgspec.json.decode(raw, type=Untagged).told(), msgspec.Raw(raw))
        answer = PromptResult(usage=None if total is None else tokens(total))
        rows.append(book.end_turn(Turn(agent_id="a", task_id="t", prompt=[], created_by="u"), answer, None))
    return rows


class Untagged(msgspec.Struct):
    """A usage_update without its tag."""

    used: int
    cost: Cost

    def told(self) -> UsageUpdate:
        return UsageUpdate(used=self.used, cost=self.cost)


@pytest.mark.parametrize(
    ("known", "reported", "turns"),
    [(4936, (7404, 9872), [2468, 2468]), (4936, (2468, 4936), [2468, 2468]), (None, (7404, 9872), [None, 2468])],
    ids=["it went on", "it began again", "unknown where it stood"],
)
async def test_cumulative_tokens_become_the_turns_difference_also_over_a_resume(
    known: int | None, reported: tuple[int, int], turns: list[int | None]
) -> None:
    before = [] if known is None else resumed(UsageReading(), Standing(), (known, None))
    rows = resumed(UsageReading(tokens="cumulative"), standing(before), *((total, None) for total in reported))
    assert [row.total_tokens for row in rows] == turns


@pytest.mark.parametrize(
    ("after", "reported", "turns"),
    [
        ("restarts", ("0.0119", "0.0238"), ["0.0119", "0.0119"]),
        ("continues", ("0.006407999999999999", "0.008544"), ["0.002136", "0.002136"]),
        ("continues", ("0.001", "0.003"), [None, "0.002"]),
        (None, ("0.001", "0.003"), ["0.001", "0.002"]),
        (None, ("0.0064", "0.0084"), [None, "0.002"]),
    ],
)
async def test_a_cost_that_starts_again_after_a_resume(after: Any, reported: Any, turns: list[str | None]) -> None:
    """claude starts again, opencode and vibe go on; of the others only a fall shows that they started again."""
    before = resumed(UsageReading(), Standing(Cost(amount=Decimal(0), currency="USD")), (None, "0.004272"))
    reading = UsageReading(cost_after_resume=after)
    rows = resumed(reading, standing(before), *((None, amount) for amount in reported))
    assert [row.cost for row in rows] == turns


async def test_a_late_update_without_a_cost_leaves_the_turns(world: Any) -> None:
    late = {"update": {"sessionUpdate": "usage_update", "used": 9, "size": 100}}
    await run(world, [cost(0.25), {"after": [late]}])
    await world.until("acp.status", lambda payload: (payload.get("update") or {}).get("used") == 9)
    await world.supervisor.shutdown()
    row = await world.usage()
    assert (row.cost, row.context_used) == ("0.25", 9)


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


CHUNK = {
    "sessionUpdate": "agent_message_chunk",
    "content": {"type": "text", "text": ""},
    "_meta": {"usage": TOKENS},
}


async def test_reports_of_each_model_call_make_the_turns_sum(world: Any) -> None:
    """As qwen counts."""
    rows = await run(world, [{"update": CHUNK}], [{"update": CHUNK}, {"update": CHUNK}])
    assert [(row.total_tokens, row.cached_read_tokens) for row in rows] == [(12, 4), (24, 8)]
    assert (rows[1].raw, rows[1].labels) == ({"chunk_usage": [TOKENS, TOKENS]}, {"chunk_usage": "per_turn"})


async def test_of_more_reports_than_are_added_the_sum_is_unknown() -> None:
    book = UsageBook(UsageReading(), board_id=None, agent_type="scripted")
    meta = msgspec.Raw(msgspec.json.encode(CHUNK["_meta"]))
    sums = []
    for calls in (1000, 1001):
        book.begin_turn()
        for _ in range(calls):
            book.take_chunk_report(meta)
        row = book.end_turn(Turn(agent_id="a", task_id="t", prompt=[], created_by="u"), None, None)
        assert (len(row.raw["chunk_usage"]), row.raw["chunk_calls"]) == (20, calls)
        sums.append(row.total_tokens)
    assert sums == [12_000, None]


async def test_a_replay_costs_nothing(world: Any) -> None:
    """What comes before the first prompt, as a loaded session replays it, is of no turn."""
    rows = await run(world, [], script={"new_steps": [{"update": CHUNK}], "after_new": [{"update": CHUNK}]})
    assert (rows[0].total_tokens, rows[0].raw) == (None, {})


@pytest.mark.parametrize("bad", [{"totalTokens": -1}, {"totalTokens": "12"}, {"totalTokens": True}, {"else": 1}])
async def test_counts_that_are_none_stay_unknown(world: Any, bad: Any) -> None:
    (row,) = await run(world, [{"usage": bad}])
    assert row.total_tokens is None
    assert row.raw == {"prompt_usage": bad}
