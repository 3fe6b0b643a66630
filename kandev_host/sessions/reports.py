"""One report of tokens, read: which counts it has, and what they come to however the agent adds them up.

Agents put cached tokens inside their input (vibe, qwen) or beside it (claude, codex, opencode), and thought tokens
inside their output or beside it. Their own `total` tells which: it is the sum of one of the ways. Seen in the released
agents; ACP leaves it open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

# A field of Usage, and how agents spell it: ACP, gemini's and then codex's `_meta.quota`.
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "input_tokens": ("inputTokens", "input_tokens"),
    "output_tokens": ("outputTokens", "output_tokens"),
    "thought_tokens": ("thoughtTokens", "thought_tokens", "reasoningOutputTokens"),
    "cached_read_tokens": ("cachedReadTokens", "cached_read_tokens", "cachedInputTokens"),
    "cached_write_tokens": ("cachedWriteTokens", "cached_write_tokens", "cacheWriteInputTokens"),
    "total_tokens": ("totalTokens", "total_tokens"),
}
COUNT_MAX = 10**15

Tokens = Mapping[str, int | None]
NOTHING: Tokens = dict.fromkeys(SPELLINGS)


class Report(msgspec.Struct, frozen=True):
    """`tokens` by field of Usage: input with all that was cached, output with all that was thought; None is unknown.

    `unclear`: no way of adding the counts up gives the report's own total, or more than one does, or it has none. The
    counts are then as they were sent.
    """

    tokens: Tokens
    unclear: bool = False


def is_count(value: Any) -> bool:
    """A number of tokens that can be one, and that a store can hold."""
    return type(value) is int and 0 <= value <= COUNT_MAX


def read(report: Any) -> Report | None:
    """The counts of one report, in any spelling. None where there are none; all of them 0 is how agents say nothing."""
    if not isinstance(report, dict):
        return None
    sent: dict[str, int | None] = {}
    for field, spellings in SPELLINGS.items():
        values = (report.get(spelling) for spelling in spellings)
        sent[field] = next((value for value in values if is_count(value)), None)
    if not any(sent.values()):
        return None
    ways = {tuple(way.items()) for way in _ways(sent)}
    return Report(dict(ways.pop())) if len(ways) == 1 else Report(sent, unclear=True)


def _ways(sent: Tokens) -> Iterator[dict[str, int | None]]:
    """What the counts mean in each of the ways that make the total."""
    total, read_in, written = sent["total_tokens"], sent["input_tokens"], sent["output_tokens"]
    if total is None or read_in is None or written is None:
        return
    cached = (sent["cached_read_tokens"] or 0) + (sent["cached_write_tokens"] or 0)
    thought = sent["thought_tokens"] or 0
    for whole_input in {read_in + cached} | ({read_in} if cached <= read_in else set()):
        for whole_output in {written + thought} | ({written} if thought <= written else set()):
            if whole_input + whole_output == total:
                yield {**sent, "input_tokens": whole_input, "output_tokens": whole_output}


def added(reports: Iterable[Report]) -> Report | None:
    """Reports of one model call each, as one; what any of them leaves out is unknown."""
    sums: Report | None = None
    for report in reports:
        if sums is None:
            sums = report
            continue
        tokens = {field: _plus(sums.tokens[field], report.tokens[field]) for field in SPELLINGS}
        sums = Report(tokens, sums.unclear or report.unclear)
    return sums


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def difference(tokens: Tokens, base: Tokens) -> Tokens | None:
    """What was used since `base`; None if any count has fallen."""
    known = {field: (tokens[field], base.get(field)) for field in SPELLINGS}
    since = {field: None if now is None or then is None else now - then for field, (now, then) in known.items()}
    return None if any(value is not None and value < 0 for value in since.values()) else since
