"""What a turn used, as far as the agent says so: one row per turn, null where it said nothing.

ACP leaves PromptResponse.usage undecided (unstable), and agents differ: an agent type says how its own is to be read
(`UsageReading`). One source is read per turn, the best there is; the others are only kept, as sent, under `raw`, and
`labels` says what each of them counts. `usage_update` gives the session's cost so far: the turn's share is the
difference to what was known when the turn began. `usage_update.used` is the size of the context, and never added up.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Context, Decimal
from typing import Any

import msgspec

from kandev_host.models import Turn, Usage, UsageReading
from kandev_host.protocol.acp import Cost, Json, PromptResult, UsageUpdate
from kandev_host.sessions import reports
from kandev_host.sessions.reports import Report, Tokens

Priced = Callable[[Usage], Awaitable[Usage]]
CALLS_ADDED = 1000
CALLS_KEPT = 20
MAGNITUDE = 18
QUANTUM = Decimal("1e-9")  # agents count in binary floats; what lies behind this is their noise
_exact = Context(prec=60)

_LABELS = {"usage_update.used": "context", "usage_update.cost": "cumulative"}
_PROMPT_LABELS = {"per_turn": "per_turn", "cumulative": "cumulative", "last_call": "context"}


class Standing(msgspec.Struct, frozen=True):
    """What the agent last told of a session as a whole: its cost so far, and its tokens so far by field of Usage."""

    cost: Cost | None = None
    tokens: Mapping[str, int | None] = msgspec.field(default_factory=dict)


def standing(rows: Iterable[Usage]) -> Standing:
    """Where a session stood, from the rows of its turns, the newest first."""
    cost: Cost | None = None
    tokens: Mapping[str, int | None] = {}
    for row in rows:
        cost = cost or _cost_in(row.raw.get("usage_update"))
        report = None if tokens else reports.read(row.raw.get("prompt_usage"))
        tokens = tokens if report is None else report.tokens
        if cost is not None and tokens:
            break
    return Standing(cost, tokens)


def unreported(turn: Turn, *, board_id: str | None, agent_type: str | None) -> Usage:
    """The row of a turn that was cut off before its agent said what it used."""
    return Usage(
        id=f"{turn.id}/agent",
        turn_id=turn.id,
        agent_id=turn.agent_id,
        task_id=turn.task_id,
        board_id=board_id,
        agent_type=agent_type,
        source="agent",
    )


def _cost_in(update: Any) -> Cost | None:
    try:
        cost = msgspec.convert(update, UsageUpdate, strict=False).cost
    except msgspec.ValidationError:
        return None
    return cost if cost is not None and _sound(cost.amount) else None


class UsageBook:
    """The accounts of one session. One that is not resumed starts at nothing."""

    def __init__(self, reading: UsageReading, *, board_id: str | None, agent_type: str) -> None:
        self._reading = reading
        self._resumed: Standing | None = None
        self._of: dict[str, Any] = {"board_id": board_id, "agent_type": agent_type}
        self._tokens: Tokens = dict.fromkeys(reports.SPELLINGS, 0)
        self._may_have_restarted = False  # its count of tokens, until the first report of this process
        self._cost: Cost | None = None
        self._base: Cost | None = None
        self._cost_told = False
        self._update: UsageUpdate | None = None
        self._raw_update: Json | None = None
        self._calls: Report | None = None
        self._calls_seen = 0
        self._calls_kept: list[Json] = []
        self._began = time.monotonic()
        self.row: Usage | None = None

    def resume(self, standing: Standing) -> None:
        """The session goes on where an earlier run of it stood."""
        self._resumed = standing
        self._tokens = standing.tokens
        self._may_have_restarted = True

    def go_on(self, standing: Standing) -> None:
        """This process stood there, when the host died that knew its counts."""
        self._cost = standing.cost
        self._tokens = standing.tokens or self._tokens
        self._may_have_restarted = self._may_have_restarted and not standing.tokens

    def begin_turn(self, ago_s: float = 0.0) -> None:
        self._base = self._cost
        self._cost_told = False
        self._update = None
        self._raw_update = None
        self._calls = None
        self._calls_seen = 0
        self._calls_kept = []
        self._began = time.monotonic() - ago_s
        self.row = None

    # --- what the agent tells ---------------------------------------------------------------------------------------

    def take_update(self, update: UsageUpdate, raw: msgspec.Raw) -> None:
        """A usage_update, of this turn or come late after it."""
        self._update = update
        self._raw_update = msgspec.json.decode(raw)
        if update.cost is not None and _sound(update.cost.amount):
            self._cost = update.cost
            self._cost_told = True

    def take_chunk_report(self, meta: msgspec.Raw) -> None:
        """`_meta.usage` of an empty chunk (qwen): one per model call, so they are added up."""
        content = msgspec.json.decode(meta)
        sent: Any = content.get("usage") if isinstance(content, dict) else None
        report = reports.read(sent)
        if report is None:
            return
        self._calls_seen += 1
        if self._calls_seen <= CALLS_KEPT:
            self._calls_kept.append(sent)
        if self._calls_seen <= CALLS_ADDED:
            self._calls = reports.added(filter(None, (self._calls, report)))

    # --- what the turn used -----------------------------------------------------------------------------------------

    def end_turn(
        self, turn: Turn, result: PromptResult | None, model: str | None, *, waited_ms: int | None = None
    ) -> Usage:
        """The row of the turn that ends now. `waited_ms` is how long it waited for people, None where nobody knows."""
        quota = (result.meta or {}).get("quota") if result is not None else None
        raw = self._raw(result, quota)
        counts, unclear = self._turn_tokens(result, quota)
        tokens: dict[str, Any] = dict(counts)
        labels = {place: label for place, label in self._labels().items() if _stands_in(place, raw)}
        if unclear is not None:
            labels[f"{unclear}.tokens"] = "unclear"
        self.row = Usage(
            id=f"{turn.id}/agent",
            turn_id=turn.id,
            agent_id=turn.agent_id,
            task_id=turn.task_id,
            source="agent",
            model=_only_model(quota) or model,
            raw=raw,
            labels=labels,
            wall_ms=round((time.monotonic() - self._began) * 1000),
            waited_ms=waited_ms,
            **tokens,
            **self._context(),
            **self._turn_cost(),
            **self._of,
        )
        return self.row

    def late_update(self, update: UsageUpdate, raw: msgspec.Raw, turn: Turn) -> Usage:
        """The corrected row of the turn that has just ended (agents report up to a second later)."""
        self.take_update(update, raw)
        row = self.row or self.end_turn(turn, None, None)
        sent = {**row.raw, "usage_update": self._raw_update}
        labels = {**row.labels, **{place: label for place, label in _LABELS.items() if _stands_in(place, sent)}}
        self.row = msgspec.structs.replace(row, raw=sent, labels=labels, **self._context(), **self._turn_cost())
        return self.row

    def priced(self, row: Usage) -> Usage:
        """The turn's row with the price that was found for it, unless the agent has told its own meanwhile."""
        if self.row is None or self.row.cost is not None:
            return self.row or row
        self.row = msgspec.structs.replace(self.row, cost=row.cost, currency=row.currency, priced_by=row.priced_by)
        return self.row

    def _turn_tokens(self, result: PromptResult | None, quota: Any) -> tuple[Tokens, str | None]:
        """The counts of the best source there is, and its name where it is unclear how they add up."""
        told = reports.read(result.usage) if result is not None else None
        if self._reading.tokens != "last_call" and told is not None:
            tokens = told.tokens if self._reading.tokens == "per_turn" else self._since_last(told.tokens)
            return tokens, "prompt_usage" if told.unclear else None
        told = reports.read(quota.get("token_count")) if isinstance(quota, dict) else None
        if told is not None:
            return told.tokens, "meta_quota" if told.unclear else None
        if self._calls is not None and self._calls_seen <= CALLS_ADDED:
            return self._calls.tokens, "chunk_usage" if self._calls.unclear else None
        return reports.NOTHING, None

    def _since_last(self, tokens: Tokens) -> Tokens:
        """The turn's part of counts that run on; a fall is a new count only where the process is a new one."""
        since = reports.difference(tokens, self._tokens)
        if since is None:
            since = tokens if self._may_have_restarted else reports.NOTHING
        self._tokens, self._may_have_restarted = tokens, False
        return since

    def _raw(self, result: PromptResult | None, quota: Any) -> Json:
        """All reports as sent, by the place where they stood."""
        places = {
            "prompt_usage": result.usage if result is not None else None,
            "meta_quota": quota,
            "chunk_usage": self._calls_kept or None,
            "chunk_calls": self._calls_seen if self._calls_seen > CALLS_KEPT else None,
            "usage_update": self._raw_update,
        }
        return {place: sent for place, sent in places.items() if sent is not None}

    def _labels(self) -> dict[str, str]:
        """What each place counts: a turn, the session so far, or the context of one model call."""
        prompt = _PROMPT_LABELS[self._reading.tokens]
        return {"prompt_usage": prompt, "meta_quota": "per_turn", "chunk_usage": "per_turn", **_LABELS}

    def _context(self) -> dict[str, Any]:
        update = self._update
        if update is None:
            return {}
        return {
            "context_used": update.used if reports.is_count(update.used) else None,
            "context_size": update.size if reports.is_count(update.size) else None,
        }

    def _turn_cost(self) -> dict[str, Any]:
        """The turn's cost, if the agent told one that says so."""
        if self._cost is None or not self._cost_told:
            return {}
        share = self._share(self._cost)
        if share is None:
            return {"cost": None, "currency": None, "priced_by": None}
        return {"cost": decimal_text(share), "currency": self._cost.currency, "priced_by": "agent"}

    def _share(self, cost: Cost) -> Decimal | None:
        base = self._base
        if base is None and self._resumed is not None and self._reading.cost_after_resume != "restarts":
            return self._first_share(cost, self._resumed.cost)
        if base is None:
            return cost.amount
        if base.currency != cost.currency or cost.amount < base.amount:
            return None
        return _exact.subtract(cost.amount, base.amount)

    def _first_share(self, cost: Cost, before: Cost | None) -> Decimal | None:
        """Of the first cost after a resume, where the agent goes on with the old sum or may have started again."""
        if before is None or before.currency != cost.currency:
            return None
        if self._reading.cost_after_resume == "continues":
            return _exact.subtract(cost.amount, before.amount) if cost.amount >= before.amount else None
        return cost.amount if cost.amount < before.amount else None


def decimal_text(amount: Decimal) -> str:
    """An amount without float noise and without needless zeros, as in "0.0119"."""
    return format(amount.quantize(QUANTUM, context=_exact).normalize(_exact), "f")


def _stands_in(place: str, raw: Json) -> bool:
    """Is there something at this place of `raw`? A dot leads into it."""
    name, _, inner = place.partition(".")
    sent = raw.get(name)
    return sent is not None if not inner else isinstance(sent, dict) and sent.get(inner) is not None


def _sound(amount: Decimal) -> bool:
    """A cost that can be one: finite, not negative, and of a size that may be written out."""
    return amount.is_finite() and amount >= 0 and abs(amount.adjusted()) <= MAGNITUDE


def _only_model(quota: Any) -> str | None:
    """The model of `_meta.quota.model_usage` (gemini), if there was just one."""
    models = quota.get("model_usage") if isinstance(quota, dict) else None
    if isinstance(models, list) and len(models) == 1 and isinstance(models[0], dict):
        name = models[0].get("model")
        return name if isinstance(name, str) else None
    return None
