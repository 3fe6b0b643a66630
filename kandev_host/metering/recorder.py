"""What committed rows say: tasks, runs, turns, usage, permissions. They are looked at after the commit, never before.

What is counted of a row that changes is the difference to what it said before; so much of it as is needed for that is
kept here, bounded by the runs that live.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from kandev_host.interfaces import Commit, Put, Telemetry
from kandev_host.metrics import OTHER, Sample
from kandev_host.models import AgentInstance, PermissionRequest, TaskEvent, Turn, Usage
from kandev_host.models.runs import LIVE_STATUSES

log = logging.getLogger(__name__)

FINISHED = {"COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "cancelled"}
TURNS_KEPT = 1024
TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "thought": "thought_tokens",
    "cached_read": "cached_read_tokens",
    "cached_write": "cached_write_tokens",
}
# Agents say in which currency they count, so it is theirs to choose.
CURRENCIES = frozenset({"USD", "EUR", "GBP", "CHF", "JPY", "CNY"})
DECIDERS = {"policy": "policy", "host": "host"}


class Recorder:
    """Turns what was committed into measurements; also tells what lives now (`samples`)."""

    def __init__(self, telemetry: Telemetry, agent_types: Iterable[str]) -> None:
        self._telemetry = telemetry
        self._agent_types = frozenset(agent_types)
        self._agents: dict[str, AgentInstance] = {}
        self._turns: set[str] = set()
        self._waiting: set[str] = set()
        self._used: OrderedDict[str, dict[str, Decimal]] = OrderedDict()
        self._of: dict[type[Any], Callable[[Any], None]] = {
            AgentInstance: self._agent,
            PermissionRequest: self._permission,
            TaskEvent: self._task,
            Turn: self._turn,
            Usage: self._usage,
        }
        # A counter that is not there yet has no rate: what alerts are made of is there from the beginning.
        for outcome in FINISHED.values():
            self._count("kandev_tasks_finished_total", 0, outcome=outcome)
        for agent_type in sorted(self._agent_types):
            self._count("kandev_agent_launches_total", 0, agent_type=agent_type, outcome="failed")
            self._count("kandev_agent_stalls_total", 0, agent_type=agent_type)

    def known(self, agent_type: str | None) -> str:
        """The label of an agent type."""
        return agent_type if agent_type in self._agent_types else OTHER

    def record(self, commits: Sequence[Commit]) -> None:
        """Look at what was written. A fault in here is logged: the rows are written, whatever is counted of them."""
        of = self._of
        try:
            for commit in commits:
                for change in commit.changes:
                    if type(change) is Put and (look := of.get(type(change.row))) is not None:
                        look(change.row)
        except Exception:
            log.exception("What was committed could not be measured")

    def samples(self) -> Iterator[Sample]:
        """Agents that live and permissions that wait."""
        found: dict[tuple[str, str], int] = {}
        for agent in self._agents.values():
            key = self.known(agent.agent_type), agent.status
            found[key] = found.get(key, 0) + 1
        for (agent_type, status), number in found.items():
            yield "kandev_agents", {"agent_type": agent_type, "status": status}, number
        yield "kandev_permissions_waiting", {}, len(self._waiting)

    def _count(self, name: str, value: float = 1, **labels: str) -> None:
        self._telemetry.count(name, value, labels)

    def _task(self, row: TaskEvent) -> None:
        if row.event_type == "created":
            self._count("kandev_tasks_created_total")
        elif row.new_state in FINISHED and row.new_state != row.old_state:
            self._count("kandev_tasks_finished_total", outcome=FINISHED[row.new_state])

    def _agent(self, row: AgentInstance) -> None:
        before = self._agents.get(row.id)
        live = row.status in LIVE_STATUSES
        if live:
            self._agents[row.id] = row
        else:
            self._agents.pop(row.id, None)
        agent_type = self.known(row.agent_type)
        if before is None and live and row.attempt > 1:
            self._count("kandev_agent_retries_total", agent_type=agent_type)
        if row.stalled_at is not None and (before is None or before.stalled_at is None):
            self._count("kandev_agent_stalls_total", agent_type=agent_type)
        if before is not None and before.status in {"PENDING", "STARTING"} and row.status != before.status:
            self._launched(row, agent_type)
        if not live:
            failure = row.failure or "none"
            if before is not None or failure == "host_died":
                outcome = row.status.lower()
                self._count("kandev_agent_runs_total", agent_type=agent_type, outcome=outcome, failure=failure)

    def _launched(self, row: AgentInstance, agent_type: str) -> None:
        if row.status in LIVE_STATUSES:
            if row.status == "RUNNING":
                self._count("kandev_agent_launches_total", agent_type=agent_type, outcome="started")
                took = (row.updated_at - row.created_at).total_seconds()
                labels = {"agent_type": agent_type}
                self._telemetry.observe("kandev_agent_launch_duration_seconds", max(took, 0.0), labels)
            return
        outcome = {"COMPLETED": "started", "FAILED": "failed"}.get(row.status, "stopped")
        self._count("kandev_agent_launches_total", agent_type=agent_type, outcome=outcome)

    def _turn(self, row: Turn) -> None:
        if row.state == "running":
            self._turns.add(row.id)
        elif row.id in self._turns:
            self._turns.discard(row.id)
            if row.started_at is not None and row.ended_at is not None:
                took = max((row.ended_at - row.started_at).total_seconds(), 0.0)
                self._telemetry.observe("kandev_turn_duration_seconds", took, {"outcome": row.state})

    def _permission(self, row: PermissionRequest) -> None:
        if row.state == "pending":
            if row.id not in self._waiting:
                self._waiting.add(row.id)
                self._count("kandev_permissions_requested_total")
            return
        by = DECIDERS.get(row.decided_by or "host", "person")
        self._count("kandev_permissions_answered_total", outcome=row.state, by=by)
        if row.id in self._waiting:
            self._waiting.discard(row.id)
            if row.resolved_at is not None:
                waited = max((row.resolved_at - row.created_at).total_seconds(), 0.0)
                self._telemetry.observe("kandev_permission_wait_seconds", waited, {})

    def _usage(self, row: Usage) -> None:
        """A row may be told again, with more; and a gateway's beside the agent's, of the same turn."""
        agent_type = self.known(row.agent_type)
        counted = self._used.get(row.turn_id)
        if counted is None:
            counted = self._used[row.turn_id] = {}
            if len(self._used) > TURNS_KEPT:
                self._used.popitem(last=False)
            if row.cost is None:
                self._count("kandev_turns_unpriced_total", agent_type=agent_type)
        for kind, field in TOKENS.items():
            more = _more(counted, kind, getattr(row, field))
            if more:
                self._count("kandev_tokens_total", float(more), agent_type=agent_type, kind=kind)
        currency = row.currency if row.currency in CURRENCIES else OTHER
        if more := _more(counted, currency, row.cost):
            self._count("kandev_cost_total", float(more), agent_type=agent_type, currency=currency)


def _more(counted: dict[str, Decimal], name: str, value: int | str | None) -> Decimal:
    """By how much it grew since it was counted last; never less than nothing, for counters only grow."""
    try:
        told = Decimal(value) if value is not None else Decimal()
    except InvalidOperation:
        return Decimal()
    before = counted.get(name, Decimal())
    if not told.is_finite() or told <= before:
        return Decimal()
    counted[name] = told
    return told - before
