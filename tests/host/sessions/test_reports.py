"""One report of tokens: what its counts come to, however the agent adds them up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.sessions.reports import COUNT_MAX, SPELLINGS, added, difference, read

# The same two model calls of the fake models (2,000 tokens read, 400 more from the cache, 68 written), as each of the
# released agents tells them.
CLAUDE = {"inputTokens": 2000, "outputTokens": 68, "cachedReadTokens": 400, "cachedWriteTokens": 0, "totalTokens": 2468}
CODEX = {**CLAUDE, "thoughtTokens": 0}
CODEX_QUOTA = {
    "totalTokens": 2468, "inputTokens": 2000, "cachedInputTokens": 400, "cacheWriteInputTokens": 0, "outputTokens": 68,
    "reasoningOutputTokens": 0,
}  # fmt: skip
VIBE = {"totalTokens": 2468, "inputTokens": 2400, "outputTokens": 68, "cachedReadTokens": 400}
OPENCODE = {"inputTokens": 1000, "outputTokens": 34, "totalTokens": 1234, "cachedReadTokens": 200}
QWEN = {"inputTokens": 1200, "outputTokens": 34, "totalTokens": 1234, "thoughtTokens": 0, "cachedReadTokens": 200}


@pytest.mark.parametrize(
    ("sent", "calls"),
    [(CLAUDE, 2), (CODEX, 2), (CODEX_QUOTA, 2), (VIBE, 2), (OPENCODE, 1), (QWEN, 1)],
    ids=["claude", "codex", "codex quota", "vibe", "opencode", "qwen"],
)
def test_cached_tokens_are_counted_once_however_an_agent_counts(sent: dict[str, int], calls: int) -> None:
    report = read(sent)
    assert report is not None
    assert not report.unclear
    assert report.tokens["input_tokens"] == 1200 * calls
    assert report.tokens["cached_read_tokens"] == 200 * calls
    assert report.tokens["output_tokens"] == 34 * calls
    assert report.tokens["total_tokens"] == 1234 * calls


@pytest.mark.parametrize(
    "sent",
    [
        {"inputTokens": 10, "outputTokens": 2, "cachedReadTokens": 4},
        {"inputTokens": 10, "outputTokens": 2, "cachedReadTokens": 4, "totalTokens": 99},
        {"inputTokens": 10, "outputTokens": 5, "cachedReadTokens": 4, "thoughtTokens": 4, "totalTokens": 19},
    ],
    ids=["no total", "no way makes the total", "two ways make it"],
)
def test_counts_that_cannot_be_added_up_stay_as_they_were_sent(sent: dict[str, int]) -> None:
    report = read(sent)
    assert report is not None
    assert report.unclear
    assert report.tokens["input_tokens"] == 10


@pytest.mark.parametrize(
    "sent",
    [
        None, 7, [], {}, {"else": 1}, {"totalTokens": 0, "inputTokens": 0, "outputTokens": 0}, {"inputTokens": 0},
        {"totalTokens": "12"}, {"totalTokens": True}, {"totalTokens": -1}, {"totalTokens": COUNT_MAX + 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_report_of_zeros_or_of_no_counts_is_no_report(sent: Any) -> None:
    assert read(sent) is None


def test_calls_are_added_and_what_one_leaves_out_is_unknown() -> None:
    one, other = read(QWEN), read({"inputTokens": 1, "outputTokens": 1, "totalTokens": 2})
    assert one is not None
    assert other is not None
    sums = added([one, other])
    assert sums is not None
    assert (sums.tokens["input_tokens"], sums.tokens["total_tokens"]) == (1201, 1236)
    assert sums.tokens["cached_read_tokens"] is None
    assert added([]) is None


def test_a_count_that_has_fallen_has_no_difference() -> None:
    first, second = read(VIBE), read({**VIBE, "totalTokens": 2400, "inputTokens": 2332})
    assert first is not None
    assert second is not None
    assert difference(second.tokens, first.tokens) is None
    assert difference(first.tokens, {}) == dict.fromkeys(SPELLINGS)


counts = st.integers(0, 10**6)


@given(fresh=counts, cached=counts, written=counts, thought=counts, inside=st.booleans(), thought_inside=st.booleans())
def test_what_is_clear_is_right(
    fresh: int, cached: int, written: int, thought: int, inside: bool, thought_inside: bool
) -> None:
    """Whichever way the agent counts, it is found out or called unclear: never another way."""
    total = fresh + cached + written + thought
    sent = {
        "inputTokens": fresh + cached if inside else fresh,
        "outputTokens": written + thought if thought_inside else written,
        "cachedReadTokens": cached,
        "thoughtTokens": thought,
        "totalTokens": total,
    }
    report = read(sent)
    if report is None:
        assert total == 0
    elif not report.unclear:
        assert report.tokens["input_tokens"] == fresh + cached
        assert report.tokens["output_tokens"] == written + thought
