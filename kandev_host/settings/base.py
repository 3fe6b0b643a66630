"""What all tables of the settings have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables: immutable, and a key that is not here is an error.

    `LIVE` are the keys that a running host takes over when it reads its settings again (`settings.live`); the others
    need a restart.
    """

    LIVE: ClassVar[frozenset[str]] = frozenset()
