"""The broker of elicitations: an agent asks for words of a person, or that they open an address; one answers.

Nothing is ever accepted by silence. What was filled in goes to the agent alone: no row, event, receipt or log has it.
An address is shown, never opened. ACP: elicitation/create, elicitation/complete; session/cancel answers `cancel`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import anyio
import msgspec
from msgspec import Raw

from kandev_host.errors import Conflict, Forbidden, KandevError, NotFound, ValidationFailed
from kandev_host.events import Event, event
from kandev_host.interfaces import Expect, Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Elicitation, ElicitationState, Task, now
from kandev_host.protocol import acp
from kandev_host.protocol.acp import Json
from kandev_host.secrets import register_for
from kandev_host.sessions.asking import Noted, unnoted
from kandev_host.sessions.forms import check_content, secrets_of
from kandev_host.settings import PermissionSettings

logger = logging.getLogger(__name__)

Outcome = Literal["accept", "decline", "cancel"]
SCOPE = "permissions:answer"
RECORD_S = 5.0
OPEN_URLS = 256
STATES: Mapping[Outcome, ElicitationState] = {"accept": "accepted", "decline": "declined", "cancel": "cancelled"}
_WORDS = {"accept": "accepted", "decline": "declined", "cancel": "cancelled"}

_complete = msgspec.json.Decoder(acp.ElicitationComplete)


class Elicited(msgspec.Struct, frozen=True):
    """An agent's question, with what the host knows around it. `asked` was read by `read_elicitation`."""

    agent: AgentInstance
    task: Task
    session_id: str | None
    turn_id: str | None
    asked: acp.ElicitationParams
    noted: Noted = unnoted


class Pending(msgspec.Struct):
    """An elicitation that waits for its answer."""

    row: Elicitation
    board_id: str
    done: anyio.Event
    result: Json | None = None


def dismissed() -> Json:
    """The result of elicitation/create when nobody chose."""
    return {"action": "cancel"}


class ElicitationBroker:
    """All that wait, of all agents. Lives as long as the host; what waits never outlives its agent."""

    def __init__(self, store: Store, journal: Journal, settings: PermissionSettings) -> None:
        self._store = store
        self._journal = journal
        self._settings = settings
        self._pending: dict[str, Pending] = {}
        self._open_urls: dict[tuple[str, str], Pending] = {}

    async def ask(self, elicited: Elicited) -> Json:
        """The ACP result for the agent, once a person has answered. Raises `KandevError` if it was not recorded."""
        asked = elicited.asked
        form = asked.mode == "form"
        row = Elicitation(
            agent_id=elicited.agent.id,
            task_id=elicited.task.id,
            turn_id=elicited.turn_id,
            session_id=elicited.session_id,
            tool_call_id=asked.tool_call_id,
            mode="form" if form else "url",
            message=asked.message,
            requested_schema=asked.requested_schema if form else None,
            url=None if form else asked.url,
            acp_id=None if form else asked.elicitation_id,
        )
        pending = Pending(row, elicited.task.board_id, anyio.Event())
        self._pending[row.id] = pending  # first: the answer may come as soon as the event is out
        try:
            with anyio.CancelScope(shield=True):  # written or not: what is written must find somebody to resolve it
                told = self._event("elicitation.requested", pending)
                await self._journal.record(Put(row), told, *elicited.noted(row.id))
        except BaseException:
            self._pending.pop(row.id, None)
            raise
        return await self._wait(pending)

    async def still_asked(self, row: Elicitation, board_id: str) -> Json | None:
        """The result for an agent that outlived the host that it had asked; None if the answer is kept nowhere."""
        if row.state != "pending":
            outcome = next(name for name, state in STATES.items() if state == row.state)
            return None if outcome == "accept" and row.mode == "form" else {"action": outcome}
        pending = self._pending[row.id] = Pending(row, board_id, anyio.Event())
        return await self._wait(pending)

    async def _wait(self, pending: Pending) -> Json:
        try:
            with anyio.move_on_after(self._settings.wait_timeout_s):
                await pending.done.wait()
            if pending.row.id in self._pending:
                await self._settle(pending, "cancel", "host", "nobody answered in time")
            await pending.done.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(RECORD_S, shield=True):
                await self._give_up(pending, "the agent withdrew it")
            raise
        return pending.result or dismissed()

    async def answer(
        self, elicitation_id: str, *, principal: Principal, outcome: Outcome, content: Mapping[str, Any] | None = None
    ) -> Elicitation:
        """The resolved row. Raises `NotFound`, `Conflict` for a second answer, `Forbidden` for anybody but a user, and
        `ValidationFailed` for what does not fit the form, which then still waits.
        """
        if principal.kind != "user":
            raise Forbidden(SCOPE)
        pending = self._pending.get(elicitation_id)
        if pending is None:
            raise await self._why_not(elicitation_id)
        if content is not None and (outcome != "accept" or pending.row.mode != "form"):
            raise ValidationFailed("content", "Only a form that is accepted has a content")
        if outcome == "accept" and pending.row.mode == "form":
            content = content or {}
            check_content(pending.row.requested_schema, content)
            typed = secrets_of(pending.row.requested_schema, pending.row.message, content)
            register_for((pending.row.agent_id, pending.row.task_id), typed)
        reason = f"{principal.name} {_WORDS[outcome]} it"
        return await self._settle(pending, outcome, principal.id, reason, content)

    async def _why_not(self, elicitation_id: str) -> KandevError:
        row = await self._store.get(Elicitation, elicitation_id)
        if row is None:
            return NotFound("elicitation", elicitation_id)
        if row.state == "pending":
            return Conflict("This is being answered, or its agent is gone", state=row.state)
        return Conflict(f"This was already {row.state}", state=row.state)

    async def cancel_all(self, agent_id: str, reason: str) -> int:
        """Answer everything pending of an agent with `cancel`; how many there were. Never raises `KandevError`."""
        mine = [pending for pending in self._pending.values() if pending.row.agent_id == agent_id]
        async with anyio.create_task_group() as tasks:  # together: a store that is locked is waited for once
            for pending in mine:
                tasks.start_soon(self._give_up, pending, reason)
        return len(mine)

    async def completed(self, agent_id: str, params: Raw) -> None:
        """The agent says that what was to be done at an address is done. An id that it never gave is nothing."""
        try:
            key = (agent_id, _complete.decode(params).elicitation_id)
        except (msgspec.DecodeError, RecursionError):
            return
        waiting = [each for each in self._pending.values() if (each.row.agent_id, each.row.acp_id) == key]
        pending = waiting[0] if waiting else self._open_urls.pop(key, None)
        if pending is None or pending.row.completed_at is not None:
            return
        pending.row = msgspec.structs.replace(pending.row, completed_at=now())
        if not waiting:  # else it is told with its answer, which is still to come
            await self._journal.post(Put(pending.row), self._event("elicitation.resolved", pending))

    async def _give_up(self, pending: Pending, reason: str) -> None:
        """Cancelled, whether or not that can be recorded: the agent must not wait for a full disk."""
        if pending.row.id not in self._pending:
            return  # an answer is being recorded: it was first
        try:
            await self._settle(pending, "cancel", "host", reason)
        except KandevError as error:
            logger.warning("a cancelled elicitation was not recorded: %s", error)
            self._pending.pop(pending.row.id, None)
            pending.result = pending.result or dismissed()
            pending.done.set()

    async def _settle(
        self,
        pending: Pending,
        outcome: Outcome,
        decided_by: str,
        reason: str,
        content: Mapping[str, Any] | None = None,
    ) -> Elicitation:
        """Record the answer, then tell the agent. Of two at once the first wins, the second is a `Conflict`."""
        row = pending.row
        taken = Conflict("This was already answered", state="resolved")
        if self._pending.pop(row.id, None) is None:
            raise taken
        resolved = msgspec.structs.replace(
            row,
            state=STATES[outcome],
            answered=None if content is None else tuple(content),
            decided_by=decided_by,
            reason=reason,
            resolved_at=now(),
        )
        pending.row = resolved
        expect = [Expect(Elicitation, row.id, taken, "state", ("pending",))]
        try:
            with anyio.CancelScope(shield=True):  # half an answer would leave the agent waiting for ever
                await self._journal.record(Put(resolved), self._event("elicitation.resolved", pending), expect=expect)
        except BaseException:
            pending.row = row
            self._pending[row.id] = pending
            raise
        pending.result = {"action": outcome} | ({} if content is None else {"content": dict(content)})
        pending.done.set()
        if outcome == "accept" and resolved.acp_id is not None and resolved.completed_at is None:
            self._remember(pending, resolved.acp_id)
        return resolved

    def _remember(self, pending: Pending, acp_id: str) -> None:
        """An address that was accepted: the agent says when it is done with."""
        self._open_urls[pending.row.agent_id, acp_id] = pending
        while len(self._open_urls) > OPEN_URLS:
            self._open_urls.pop(next(iter(self._open_urls)))

    def _event(self, action: str, pending: Pending) -> Event:
        row = pending.row
        return event(
            action,
            {"elicitation": row, "agent_id": row.agent_id, "task_id": row.task_id},
            actor=row.decided_by or row.agent_id,
            board_id=pending.board_id,
            task_id=row.task_id,
            agent_id=row.agent_id,
            turn_id=row.turn_id,
        )
