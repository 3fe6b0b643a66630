"""usage.summary"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from kandev_host.protocol.actions.fields import Id, Limit, Request, Response

Moment = Annotated[datetime, Meta(tz=True)]


class UsageSummary(Request, frozen=True, kw_only=True):
    """Of the turns that meet every filter and ended from `since` on, before `until`. Deleted tasks still count.

    Days are UTC's. `limit` bounds the groups; `total` is of all.
    """

    task_id: Id | None = None
    agent_id: Id | None = None
    board_id: Id | None = None
    since: Moment | None = None
    until: Moment | None = None
    group_by: Literal["day", "agent_type", "model", "task"] | None = None
    limit: Limit = 100


class UsageGroup(Response, frozen=True, kw_only=True):
    """Sums over turns; null where none of them told it. `key` null is unknown, or of all.

    `cost` is exact decimal text by currency. `unpriced_turns` have no cost, `unreported_turns` no tokens: the sums are
    without them. `wall_s` is how long the turns took, `waiting_s` for how much of that they waited for people.
    """

    key: str | None
    turns: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    cached_read_tokens: int | None = None
    cached_write_tokens: int | None = None
    total_tokens: int | None = None
    cost: dict[str, str]
    unpriced_turns: int
    unreported_turns: int
    wall_s: float | None = None
    waiting_s: float | None = None


class UsageSummaryReply(Response, frozen=True, kw_only=True):
    """Groups of days newest first, others by most turns; none without `group_by`."""

    groups: list[UsageGroup]
    total: UsageGroup
