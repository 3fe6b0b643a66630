"""What a turn used, as far as the agent says so. Kept as sent under `raw`, and read only where that is sound.

ACP leaves PromptResponse.usage undecided (unstable), and agents differ: so exactly one source is read per turn, the
others are only kept; nothing is added up; unknown is None. `usage_update` gives the session's cumulative cost: the
turn's share is the difference to what was known when the turn began, in the same currency and not falling.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from kandev_host.models import Turn, Usage
from kandev_host.protocol.acp import Cost, Json, PromptResult, UsageUpdate

TOKENS = {
    "input_tokens": ("inputTokens", "input_tokens"),
    "output_tokens": ("outputTokens", "output_tokens"),
    "thought_tokens": ("thoughtTokens", "thought_tokens"),
    "cached_read_tokens": ("cachedReadTokens", "cached_read_tokens"),
    "cached_write_tokens": ("cachedWriteTokens", "cached_write_tokens"),
    "total_tokens": ("totalTokens", "total_tokens"),
}
CHUNK_REPORTS_KEPT = 20
MAGNITUDE = 18
COUNT_MAX = 10**15


def read_tokens(report: Any) -> dict[str, Any]:
    """The token counts of one report, in either spelling; what is absent or no count is None."""
    if not isinstance(report, dict):
        return {}
    found = {}
    for field, spellings in TOKENS.items():
        values = (report.get(spelling) for spelling in spellings)
        found[field] = next((n for n in values if is_count(n)), None)
    return found if any(value is not None for value in found.values()) else {}


def is_count(value: Any) -> bool:
    """A number of tokens that can be one, and that a store can hold."""
    return type(value) is int and 0 <= value <= COUNT_MAX


class UsageBook:
    """The accounts of one session. Costs of a session opened by session/new start at nothing."""

    def __init__(self) -> None:
        self._cost: Cost | None = None
        self._base: Cost | None = None
        self._cost_told = False
        self._update: UsageUpdate | None = None
        self._raw_update: Json | None = None
        self._chunk_reports: list[Json] = []
        self.row: Usage | None = None

    def begin_turn(self) -> None:
        self._base = self._cost
        self._cost_told = False
        self._update = None
        self._raw_update = None
        self._chunk_reports = []
        self.row = None

    def take_update(self, update: UsageUpdate, raw: msgspec.Raw) -> None:
        """A usage_update, of this turn or come late after it."""
        self._update = update
        self._raw_update = msgspec.json.decode(raw)
        if update.cost is not None and _sound(update.cost.amount):
            self._cost = update.cost
            self._cost_told = True

    def take_chunk_report(self, meta: msgspec.Raw) -> None:
        """`_meta.usage` of an empty chunk (qwen): one per model call."""
        report = msgspec.json.decode(meta)
        if isinstance(report, dict) and read_tokens(report.get("usage")) and self._may_keep_report():
            self._chunk_reports.append(report["usage"])

    def _may_keep_report(self) -> bool:
        return len(self._chunk_reports) < CHUNK_REPORTS_KEPT

    def end_turn(self, turn: Turn, result: PromptResult | None, model: str | None) -> Usage | None:
        """The row of the turn that ends now; None if the agent said nothing at all."""
        raw: Json = {}
        source = self._read_result(result, raw)
        if self._chunk_reports:
            raw["chunk_usage"] = self._chunk_reports
            if not source and len(self._chunk_reports) == 1:
                source = self._chunk_reports[0]
        self._raw_into(raw)
        if not raw:
            return None
        self.row = Usage(
            turn_id=turn.id,
            agent_id=turn.agent_id,
            task_id=turn.task_id,
            source="agent",
            model=_only_model(result) or model,
            raw=raw,
            **read_tokens(source),
            **self._context_and_cost(),
        )
        return self.row

    def late_update(self, update: UsageUpdate, raw: msgspec.Raw, turn: Turn) -> Usage:
        """The corrected row of the turn that has just ended (agents report up to a second later)."""
        self.take_update(update, raw)
        row = self.row or Usage(turn_id=turn.id, agent_id=turn.agent_id, task_id=turn.task_id, source="agent")
        merged = dict(row.raw)
        self._raw_into(merged)
        self.row = msgspec.structs.replace(row, raw=merged, **self._context_and_cost())
        return self.row

    def _read_result(self, result: PromptResult | None, raw: Json) -> Any:
        """The one report of the answer to read, and all of them into `raw`, labelled by where they stood."""
        if result is None:
            return None
        if result.usage is not None:
            raw["prompt_usage"] = result.usage
        quota = (result.meta or {}).get("quota")
        if quota is not None:
            raw["meta_quota"] = quota
        if read_tokens(result.usage):
            return result.usage
        return quota.get("token_count") if isinstance(quota, dict) else None

    def _raw_into(self, raw: Json) -> None:
        if self._raw_update is not None:
            raw["usage_update"] = self._raw_update

    def _context_and_cost(self) -> dict[str, Any]:
        update = self._update
        if update is None:
            return {}
        cost = self._turn_cost()
        return {
            "context_used": update.used if is_count(update.used) else None,
            "context_size": update.size if is_count(update.size) else None,
            "cost": None if cost is None else format(cost, "f"),
            "currency": None if cost is None or self._cost is None else self._cost.currency,
        }

    def _turn_cost(self) -> Decimal | None:
        if self._cost is None or not self._cost_told:
            return None
        if self._base is None:
            return self._cost.amount
        if self._base.currency != self._cost.currency or self._cost.amount < self._base.amount:
            return None
        return self._cost.amount - self._base.amount


def _sound(amount: Decimal) -> bool:
    """A cost that can be one: finite, not negative, and of a size that may be written out."""
    return amount.is_finite() and amount >= 0 and abs(amount.adjusted()) <= MAGNITUDE


def _only_model(result: PromptResult | None) -> str | None:
    """The model of `_meta.quota.model_usage` (gemini), if there was just one."""
    quota = (result.meta or {}).get("quota") if result is not None else None
    models = quota.get("model_usage") if isinstance(quota, dict) else None
    if isinstance(models, list) and len(models) == 1 and isinstance(models[0], dict):
        name = models[0].get("model")
        return name if isinstance(name, str) else None
    return None
