"""What tasks and agents used: sums in which the unknown stays unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Op, Principal, Store, UsageSum
from kandev_host.models import AgentInstance, Board, Row, Task, Turn, Usage
from kandev_host.protocol.actions.agents import UsageTotals
from kandev_host.protocol.actions.usage import UsageGroup, UsageSummary, UsageSummaryReply
from kandev_host.services.rows import need
from kandev_host.sessions.usage import Standing, standing

KINDS = (
    "input_tokens",
    "output_tokens",
    "thought_tokens",
    "cached_read_tokens",
    "cached_write_tokens",
    "total_tokens",
)
NEWEST_ROWS = 100
Where = Sequence[tuple[str, Op, Any]]


class UsageService:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def summary(self, principal: Principal, request: UsageSummary) -> UsageSummaryReply:
        """Sums by group, and of all.

        Raises `ValidationFailed` for a time that ends before it begins, and `NotFound` for an id of which there is
        neither a row nor a turn.
        """
        del principal
        if request.since is not None and request.until is not None and request.until <= request.since:
            raise ValidationFailed("until", "until must be later than since")
        filters: list[tuple[str, Op, Any]] = [
            ("task_id", "=", request.task_id),
            ("agent_id", "=", request.agent_id),
            ("board_id", "=", request.board_id),
            ("created_at", ">=", request.since),
            ("created_at", "<", request.until),
        ]
        where = [condition for condition in filters if condition[2] is not None]
        (total,) = await self._store.usage_sums(where)
        if total.turns == 0:
            await self._check_known(request)
        groups: list[UsageSum] = []
        if request.group_by is not None:
            groups = await self._store.usage_sums(where, group_by=request.group_by, limit=request.limit)
        return UsageSummaryReply(groups=[_told(each) for each in groups], total=_told(total))

    async def _check_known(self, request: UsageSummary) -> None:
        named: Sequence[tuple[type[Row], str, str | None]] = (
            (Task, "task_id", request.task_id),
            (AgentInstance, "agent_id", request.agent_id),
            (Board, "board_id", request.board_id),
        )
        for kind, name, id in named:
            if id is not None and not await self._store.count(Usage, [(name, "=", id)]):
                await need(self._store, kind, id)

    async def of_agent(self, agent_id: str) -> UsageTotals:
        return await self._of("agent_id", agent_id)

    async def of_task(self, task_id: str) -> UsageTotals:
        return await self._of("task_id", task_id)

    async def standing(self, agent_ids: Sequence[str]) -> Standing:
        """Where the session of these runs stood when its agent last told, for the run that goes on with it."""
        page = await self._store.find(
            Usage, [("agent_id", "in", tuple(agent_ids))], order=("-created_at", "-id"), limit=NEWEST_ROWS
        )
        return standing(page.rows)

    async def _of(self, field: str, id: str) -> UsageTotals:
        (found,) = await self._store.usage_sums([(field, "=", id)])
        turns = await self._store.count(Turn, [(field, "=", id), ("state", "in", ("ended", "failed", "cancelled"))])
        priced = found.turns - found.unpriced_turns
        tokens = {kind: getattr(found, kind) for kind in KINDS}
        return UsageTotals(turns=turns, cost=dict(found.cost), unpriced_turns=max(turns - priced, 0), **tokens)


def _told(sums: UsageSum) -> UsageGroup:
    return UsageGroup(
        key=sums.key,
        turns=sums.turns,
        **{kind: getattr(sums, kind) for kind in KINDS},
        cost=dict(sums.cost),
        unpriced_turns=sums.unpriced_turns,
        unreported_turns=sums.unreported_turns,
        wall_s=_seconds(sums.wall_ms),
        waiting_s=_seconds(sums.waited_ms),
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
