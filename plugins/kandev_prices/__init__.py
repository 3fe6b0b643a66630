"""What models cost, from the list that genai-prices carries with it (extra `kandev-host[prices]`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec

from kandev_host import Environment, Prices, Provider, hookimpl

EXTRA = "kandev-host[prices]"


@asynccontextmanager
async def open_prices(_settings: None, _environment: Environment) -> AsyncIterator[Prices]:
    """The list is read when the first price is asked for."""
    from kandev_prices.listed import ListedPrices

    yield ListedPrices()


@hookimpl
def kandev_prices() -> list[Provider[None, Prices]]:
    return [Provider("genai", open_prices, missing=None if find_spec("genai_prices") else EXTRA)]
