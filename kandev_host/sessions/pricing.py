"""A price for the turns whose agent tells none, where it is known how much of which model they used."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import anyio
from msgspec.structs import replace

from kandev_host.errors import KandevError
from kandev_host.interfaces import Price, Prices, Put, Store, Use
from kandev_host.journal import Journal
from kandev_host.models import Usage
from kandev_host.sessions import reports
from kandev_host.sessions.reports import Tokens
from kandev_host.sessions.usage import decimal_text

log = logging.getLogger(__name__)

PRICE_S = 2.0  # a turn's end waits no longer for its price
OWED_ROWS = 1000


class Pricing:
    """Of a turn whose price comes too late for its end, the row is priced with the next turn that has one."""

    def __init__(self, prices: Prices, store: Store, journal: Journal) -> None:
        self._prices = prices
        self._store = store
        self._journal = journal
        self._owed: deque[str] = deque(maxlen=OWED_ROWS)

    async def priced(self, row: Usage) -> Usage:
        """The row with a price, if it has none and one is found within PRICE_S; else as it is."""
        uses = uses_of(row)
        if not uses:
            return row
        with anyio.move_on_after(PRICE_S) as deadline:
            row = await self._with_price(row, uses)
            await self._settle()
        if deadline.cancelled_caught and row.cost is None:
            self._owed.append(row.id)
        return row

    async def _settle(self) -> None:
        """Write the prices that came too late before."""
        while self._owed:
            row = await self._store.get(Usage, self._owed[0])
            if row is not None and (late := await self._with_price(row, uses_of(row))) is not row:
                try:
                    await self._journal.record(Put(late))
                except KandevError as error:
                    log.warning("the price of turn %s was not recorded: %s", late.turn_id, error)
            self._owed.popleft()

    async def _with_price(self, row: Usage, uses: Sequence[Use]) -> Usage:
        found = [await self._price(row, use) for use in uses]
        known = [price for price in found if price is not None]
        currencies = {price.currency for price in known}
        if not known or len(known) < len(uses) or len(currencies) != 1:
            return row
        try:
            cost = decimal_text(sum((Decimal(price.amount) for price in known), Decimal()))
        except InvalidOperation:
            return row
        return replace(row, cost=cost, currency=currencies.pop(), priced_by="prices")

    async def _price(self, row: Usage, use: Use) -> Price | None:
        try:
            return await self._prices.price(use, row.created_at)
        except Exception:  # a plugin's own fault, of any kind: an unknown price must not cost the run
            log.exception("the price of model %r could not be found", use.model)
            return None


def uses_of(row: Usage) -> list[Use]:
    """What is to be priced: of one model, or of each that the agent lists. None where the row does not say enough."""
    if row.cost is not None:
        return []
    quota = row.raw.get("meta_quota")
    listed = quota.get("model_usage") if isinstance(quota, dict) else None
    if isinstance(listed, list) and len(listed) > 1:
        uses = [_listed_use(each) for each in listed]
        return [use for use in uses if use is not None] if None not in uses else []
    tokens = {field: getattr(row, field) for field in reports.SPELLINGS}
    use = _use(row.model, row.provider, tokens, unclear="unclear" in row.labels.values())
    return [] if use is None else [use]


def _listed_use(entry: Any) -> Use | None:
    report = reports.read(entry.get("token_count")) if isinstance(entry, dict) else None
    if report is None or not isinstance(entry.get("model"), str):
        return None
    return _use(entry["model"], None, report.tokens, unclear=report.unclear)


def _use(model: str | None, provider: str | None, tokens: Tokens, *, unclear: bool) -> Use | None:
    """None if the model or its tokens are unknown, or if some may be counted twice."""
    read, written = tokens["input_tokens"], tokens["output_tokens"]
    parts = ("cached_read_tokens", "cached_write_tokens", "thought_tokens")
    if model is None or read is None or written is None or (unclear and any(tokens[part] for part in parts)):
        return None
    return Use(
        model=model,
        provider=provider,
        input_tokens=read,
        output_tokens=written,
        cached_read_tokens=tokens["cached_read_tokens"],
        cached_write_tokens=tokens["cached_write_tokens"],
    )
