"""What a finished turn, or the end of a run, means for its task (docs/orchestrator.md). Pure."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from kandev_host.models import AgentInstance, TaskState
from kandev_host.sessions.turns import TurnOutcome, TurnResult

REQUEUE: Final = "requeue"
REVIEW = "The agent is done; its work waits for review"
SHUT_DOWN = "The host shut down while the agent was running"
DIED = "The agent died"

RUNNING: tuple[TaskState, ...] = ("IN_PROGRESS",)
UNFINISHED: tuple[TaskState, ...] = ("IN_PROGRESS", "BLOCKED")


class Verdict(msgspec.Struct, frozen=True):
    """The task's next state and why, if it is in one of `only_from`: what a person decided meanwhile stands."""

    state: TaskState
    reason: str | None = None
    only_from: tuple[TaskState, ...] = RUNNING


_NEEDS_A_PERSON: dict[TurnResult, str] = {
    "refused": "The agent refused to go on",
    "max_tokens": "The agent reached its limit of tokens",
    "max_turn_requests": "The agent reached its limit of requests in one turn",
    "cancelled": "The agent gave up its turn although nobody had cancelled it",
}


def done(*, auto_complete: bool) -> Verdict:
    """A run that ended well."""
    return Verdict("COMPLETED") if auto_complete else Verdict("BLOCKED", REVIEW)


def of_turn(agent: AgentInstance, outcome: TurnOutcome, *, auto_complete: bool) -> Verdict | None:
    """After a turn; None to leave the task as it is.

    A cancel that somebody asked for leaves task and agent as they are. A run that is not orchestrated ends no task by
    itself: only what needs a person is told. A failed or empty turn ends an orchestrated run, and the run's end is
    what decides then: it alone knows whether someone ended it.
    """
    if outcome.asked_to_cancel:
        return None
    if outcome.result == "completed":
        return done(auto_complete=auto_complete) if agent.orchestrated else None
    reason = _NEEDS_A_PERSON.get(outcome.result)
    return None if reason is None else Verdict("BLOCKED", outcome.error or reason)


def of_run(
    agent: AgentInstance, reason: str | None, *, by_person: bool, holds_lease: bool, auto_complete: bool
) -> Verdict | Literal["requeue"] | None:
    """After a run; None to leave the task as it is, "requeue" for a run that its host's shutdown cut short.

    What a person stopped is cancelled, however it ended in the end. A run without a lease is a person's: one of
    `agent.launch`, or one that a person went on with after its task was BLOCKED. It is not repeated, and a shutdown
    leaves it to them. A failure may still be tried again: `retry`. The want of a log-in needs a person.
    """
    if by_person and agent.status != "COMPLETED":
        return Verdict("CANCELLED", reason, UNFINISHED)
    if agent.status == "FAILED" and agent.failure == "login":
        return Verdict("BLOCKED", reason, UNFINISHED)
    if agent.status == "FAILED":
        return Verdict("FAILED", reason or DIED, UNFINISHED)
    if agent.status == "COMPLETED":
        return done(auto_complete=auto_complete) if holds_lease else None
    return REQUEUE if holds_lease else Verdict("BLOCKED", reason or SHUT_DOWN)
