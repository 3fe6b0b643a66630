"""Prices from the list inside the installed genai-prices, and from nowhere else: a newer list is a newer release.

It is imported at the first need, in a worker thread, for it takes half a second and 25 MiB. Its own updates from the
network are never begun.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import datetime
from types import ModuleType

import anyio.to_thread

from kandev_host import Price, Use

log = logging.getLogger(__name__)

CURRENCY = "USD"  # every price of the list is in it
_EFFORT = re.compile(r"\[(?:low|medium|high|xhigh)\]$")


class ListedPrices:
    """See `Prices`."""

    async def price(self, use: Use, at: datetime) -> Price | None:
        return await anyio.to_thread.run_sync(_price, use, at, abandon_on_cancel=True)


def _price(use: Use, at: datetime) -> Price | None:
    import genai_prices

    for provider, model in names(use):
        price = _listed(genai_prices, use, at, provider, model)
        if price is not None:
            return price
    return None


def names(use: Use) -> Iterator[tuple[str | None, str]]:
    """Provider and model as agents write them, the likeliest first: codex puts the effort behind it, in brackets."""
    plain = _EFFORT.sub("", use.model)
    for model in dict.fromkeys((use.model, plain)):
        yield use.provider, model
        for mark in ("/", ":"):
            provider, found, rest = model.partition(mark)
            if found and provider and rest:
                yield provider, rest


def _listed(prices: ModuleType, use: Use, at: datetime, provider: str | None, model: str) -> Price | None:
    try:
        usage = prices.Usage(
            input_tokens=use.input_tokens,
            output_tokens=use.output_tokens,
            cache_read_tokens=use.cached_read_tokens,
            cache_write_tokens=use.cached_write_tokens,
        )
        found = prices.calc_price(usage, model, provider_id=provider, genai_request_timestamp=at)
    except LookupError:
        return None
    except ValueError as error:  # a use that cannot be, such as more from the cache than was read
        log.info("no price of %s: %s", model, error)
        return None
    return Price(format(found.total_price, "f"), CURRENCY)
