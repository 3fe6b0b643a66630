"""Questions that outlived their run: its host died, and whoever goes on with its session may ask them again.

A question is the same if all that was shown of it is: title, kind, input, diffs, locations and options. The id of the
call is not: an agent that goes on makes a new one. It must be asked by a run that goes on with the one that asked it
first, and until the end of the first turn of that run.
"""

from __future__ import annotations

from typing import Any

from kandev_host.interfaces import Op, Store
from kandev_host.models import AgentInstance, PermissionRequest, Turn
from kandev_host.protocol.acp import Json
from kandev_host.sessions.presets import diffs_of

RUNS = 16
PAGE = 500
ANSWERED = ("allowed", "rejected")


def effects_of(tool_call: Json) -> Json:
    """What says what a call does: its input, its diffs and its locations; what it does not say is left out."""
    diffs = diffs_of(tool_call) or None
    said = {"rawInput": tool_call.get("rawInput"), "diffs": diffs, "locations": tool_call.get("locations") or None}
    return {name: value for name, value in said.items() if value is not None}


def is_left(agent: AgentInstance | None) -> bool:
    """May the questions of this run, which is over, be asked again by one that goes on with it?"""
    return agent is not None and agent.failure == "host_died" and agent.session_id is not None


async def left_question(
    store: Store, asking: AgentInstance, call: Json, options: list[Json]
) -> PermissionRequest | None:
    """The question that `asking` asks again, pending or answered since its run ended; the oldest of several."""
    run = asking
    for _ in range(RUNS):
        if run.resumed_from is None or await _had_a_turn(store, run):
            return None
        before = await store.get(AgentInstance, run.resumed_from)
        if before is None:
            return None
        if is_left(before) and (found := await _same_of(store, before, call, options)) is not None:
            return found
        run = before
    return None


async def _same_of(store: Store, run: AgentInstance, call: Json, options: list[Json]) -> PermissionRequest | None:
    cursor: str | None = None
    while True:
        page = await store.find(PermissionRequest, [("agent_id", "=", run.id)], limit=PAGE, cursor=cursor)
        for row in page.rows:
            if _waits(row, run) and _shown(row.tool_call, row.options) == _shown(call, options):
                return row
        cursor = page.next_cursor
        if cursor is None:
            return None


def _waits(row: PermissionRequest, run: AgentInstance) -> bool:
    """Does its answer still have to reach an agent?"""
    if row.state == "pending":
        return True
    after = row.resolved_at is not None and run.stopped_at is not None and row.resolved_at >= run.stopped_at
    return after and row.state in ANSWERED


def _shown(call: Json, options: list[Json]) -> list[object]:
    return [call.get("title"), call.get("kind"), effects_of(call), options]


async def _had_a_turn(store: Store, run: AgentInstance) -> bool:
    where: list[tuple[str, Op, Any]] = [("agent_id", "=", run.id), ("state", "in", ("ended", "cancelled"))]
    return await store.count(Turn, where) > 0
