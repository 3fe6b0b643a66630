"""Durable events: what the journal keeps and the bus relays after commit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from kandev_host.models import new_id, now

Sink = Callable[["Event"], None]
ALL = "*"


class Event(msgspec.Struct, kw_only=True, gc=False):
    """Something that happened. The journal gives a durable event its `seq` at commit; a transient one has none.

    `action` is the notification's name on the wire (`task.created`, `acp.log`); `payload` is its JSON, encoded
    once for every subscriber and for the store. The ids say which topics it belongs to. `text`, where it is set, is all
    in the payload that is not the host's own words, so that whoever looks for secrets need look at nothing else.
    """

    action: str
    payload: msgspec.Raw
    id: str = msgspec.field(default_factory=new_id)
    seq: int | None = None
    actor: str = "host"
    board_id: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    turn_id: str | None = None
    shell_id: str | None = None
    to_all: bool = True
    created_at: datetime = msgspec.field(default_factory=now)
    text: str | None = None

    def topics(self) -> tuple[str, ...]:
        """Every topic of the protocol that this event belongs to, `*` last."""
        named = (
            ("task:", self.task_id), ("board:", self.board_id), ("agent:", self.agent_id), ("shell:", self.shell_id),
        )  # fmt: skip
        return (*(prefix + value for prefix, value in named if value is not None), *((ALL,) if self.to_all else ()))


_encoder = msgspec.json.Encoder()


def event(action: str, payload: Any, **fields: Any) -> Event:
    """An event whose payload (a struct or a dict) is encoded here and now."""
    return Event(action=action, payload=msgspec.Raw(_encoder.encode(payload)), **fields)
