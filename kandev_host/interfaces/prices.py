"""What tokens cost, where the agent does not say."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one model. `input_tokens` are all that were read: those from a cache, and to it, are among them."""

    model: str
    provider: str | None = None
    input_tokens: int
    output_tokens: int
    cached_read_tokens: int | None = None
    cached_write_tokens: int | None = None


class Price(msgspec.Struct, frozen=True):
    """A decimal as text, and its ISO 4217 currency."""

    amount: str
    currency: str


class Prices(Protocol):
    """A list of what models cost. It opens no connection while the host runs."""

    async def price(self, use: Use, at: datetime) -> Price | None:
        """What this cost then; None for a model that is not on the list, or not with such a use. Never raises."""
        ...
