"""The permission broker: policy, ask, answer, cancel.

Nothing is ever allowed by silence. An option is chosen by its kind, never by its place, name or id; the broker itself
chooses only `allow_once` and `reject_once`, and only where exactly one is offered to allow. A person may choose any
option that was offered. ACP: session/request_permission, session/cancel (which answers all pending ones `cancelled`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import msgspec

from kandev_host.errors import Conflict, KandevError, NotFound, ValidationFailed
from kandev_host.events import Event, event
from kandev_host.interfaces import Decision, Expect, Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, PermissionRequest, PermissionState, Session, Task, now
from kandev_host.protocol import acp
from kandev_host.protocol.acp import Json
from kandev_host.sessions.presets import Preset, preset_decision, strictest
from kandev_host.settings import PermissionSettings

logger = logging.getLogger(__name__)

Policy = Callable[[PermissionRequest, Task], Decision | None]
RECORD_S = 5.0
BROKER = "policy"


@dataclass(frozen=True, slots=True)
class Asked:
    """An agent's question: session/request_permission, with what the host knows around it."""

    agent: AgentInstance
    task: Task
    session: Session
    turn_id: str | None
    tool_call: Json
    options: list[Json]


@dataclass(slots=True)
class Pending:
    """A request that waits for its answer."""

    request: PermissionRequest
    board_id: str
    done: anyio.Event
    outcome: Json | None = None


def digest(acp_session_id: str, tool_call: Json, options: Sequence[Json]) -> str:
    """What an answer is bound to: session, call, input and options, as they were shown."""
    shown = [acp_session_id, tool_call.get("toolCallId"), tool_call.get("rawInput"), list(options)]
    return hashlib.sha256(msgspec.json.encode(shown, order="sorted")).hexdigest()


class PermissionBroker:
    """All requests that wait, of all agents. Lives as long as the host; what waits never outlives its agent."""

    def __init__(
        self, store: Store, journal: Journal, policies: Sequence[Policy] = (), *, settings: PermissionSettings
    ) -> None:
        self._store = store
        self._journal = journal
        self._policies = policies
        self._settings = settings
        self._pending: dict[str, Pending] = {}

    # --- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, asked: Asked, preset: Preset | None = None) -> Json:
        """The ACP result for the agent, once policy or a person has decided. Raises `KandevError` if not recorded."""
        task, options = asked.task, asked.options
        request = PermissionRequest(
            agent_id=asked.agent.id,
            task_id=task.id,
            turn_id=asked.turn_id,
            session_id=asked.session.id,
            tool_call=asked.tool_call,
            options=options,
            digest=digest(asked.session.acp_session_id, asked.tool_call, options),
        )
        pending = Pending(request, task.board_id, anyio.Event())
        decision = self._decide(request, task, preset or self._settings.preset)
        if decision.effect != "ask":
            option_id = only_option(options, "allow_once" if decision.effect == "allow" else "reject_once")
            if decision.effect == "deny" or option_id is not None:
                await self._settle(pending, option_id, BROKER, decision.reason, asked=False)
                return pending.outcome or acp.cancelled()
        await self._open(pending)
        return await self._wait(pending)

    def _decide(self, request: PermissionRequest, task: Task, preset: Preset) -> Decision:
        decisions = [preset_decision(preset, request)]
        for policy in self._policies:
            try:
                decision = policy(request, task)
            except Exception:
                logger.exception("a permission policy failed: asking instead")
                decision = Decision("ask", "a policy failed")
            if decision is not None:
                decisions.append(decision)
        return strictest(decisions)

    async def _open(self, pending: Pending) -> None:
        request = pending.request
        self._pending[request.id] = pending  # first: the answer may come as soon as the event is out
        try:
            with anyio.CancelScope(shield=True):  # written or not: what is written must find somebody to resolve it
                await self._journal.record(Put(request), self._event("permission.requested", pending))
        except BaseException:
            self._pending.pop(request.id, None)
            raise

    async def _wait(self, pending: Pending) -> Json:
        try:
            with anyio.move_on_after(self._settings.wait_timeout_s):
                await pending.done.wait()
            if pending.request.id in self._pending:
                option_id = only_option(pending.request.options, "reject_once")
                await self._settle(pending, option_id, BROKER, "nobody answered in time")
            await pending.done.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(RECORD_S, shield=True):
                await self._give_up(pending, "the agent withdrew it")
            raise
        return pending.outcome or acp.cancelled()

    # --- answering --------------------------------------------------------------------------------------------------

    async def answer(
        self,
        permission_id: str,
        *,
        principal: Principal,
        option_id: str | None = None,
        outcome: Literal["cancelled"] | None = None,
    ) -> PermissionRequest:
        """The resolved request.

        Raises `NotFound`, `Conflict` for a second answer, `ValidationFailed` for an option that was not offered.
        """
        pending = self._pending.get(permission_id)
        if pending is None:
            raise await self._why_not(permission_id)
        if (option_id is None) == (outcome is None):
            raise ValidationFailed("option_id", "Give either option_id or outcome")
        offered = {option.get("optionId") for option in pending.request.options}
        if option_id is not None and option_id not in offered:
            raise ValidationFailed("option_id", f"This request does not offer {option_id!r}")
        return await self._settle(pending, option_id, principal.id, None)

    async def _why_not(self, permission_id: str) -> KandevError:
        row = await self._store.get(PermissionRequest, permission_id)
        if row is None:
            return NotFound("permission", permission_id)
        if row.state == "pending":
            return Conflict("This request is being answered, or its agent is gone", state=row.state)
        return Conflict(f"This request was already {row.state}", state=row.state)

    async def cancel_all(self, agent_id: str, reason: str) -> int:
        """Answer everything pending of an agent with `cancelled`; how many there were. Never raises `KandevError`."""
        mine = [pending for pending in self._pending.values() if pending.request.agent_id == agent_id]
        async with anyio.create_task_group() as tasks:  # together: a store that is locked is waited for once
            for pending in mine:
                tasks.start_soon(self._give_up, pending, reason)
        return len(mine)

    def pending(self, agent_id: str) -> list[PermissionRequest]:
        """What waits of an agent, oldest first."""
        return [item.request for item in self._pending.values() if item.request.agent_id == agent_id]

    async def input_changed(self, agent_id: str, tool_call_id: str, raw_input: Any) -> None:
        """The input of a call is not what was shown for it any more: a request that waits for it is void."""
        for pending in tuple(self._pending.values()):
            shown = pending.request.tool_call
            if pending.request.agent_id != agent_id or shown.get("toolCallId") != tool_call_id:
                continue
            if shown.get("rawInput") is not None and shown["rawInput"] != raw_input:
                await self._give_up(pending, "the input changed while it waited")

    # --- settling ---------------------------------------------------------------------------------------------------

    async def _give_up(self, pending: Pending, reason: str) -> None:
        """Cancelled, whether or not that can be recorded: the agent must not wait for a full disk."""
        if pending.request.id not in self._pending:
            return  # an answer is being recorded: it was first
        try:
            await self._settle(pending, None, "host", reason)
        except KandevError as error:
            logger.warning("a cancelled permission was not recorded: %s", error)
            self._pending.pop(pending.request.id, None)
            pending.outcome = pending.outcome or acp.cancelled()
            pending.done.set()

    async def _settle(
        self, pending: Pending, option_id: str | None, decided_by: str, reason: str | None, *, asked: bool = True
    ) -> PermissionRequest:
        """Record the decision, then tell the agent. Of two at once the first wins, the second is a `Conflict`."""
        request = pending.request
        if asked and self._pending.pop(request.id, None) is None:
            raise Conflict("This request was already answered", state="resolved")
        resolved = msgspec.structs.replace(
            request,
            state=state_of(request.options, option_id),
            option_id=option_id,
            decided_by=decided_by,
            reason=reason,
            resolved_at=now(),
        )
        taken = Conflict("This request was already answered", state="resolved")
        expect = [Expect(PermissionRequest, request.id, taken, "state", ("pending",))] if asked else []
        pending.request = resolved
        try:
            with anyio.CancelScope(shield=True):  # half an answer would leave the agent waiting for ever
                await self._journal.record(Put(resolved), self._event("permission.resolved", pending), expect=expect)
        except BaseException:
            if asked:
                pending.request = request
                self._pending[request.id] = pending
            raise
        pending.outcome = acp.cancelled() if option_id is None else acp.selected(option_id)
        pending.done.set()
        return resolved

    def _event(self, action: str, pending: Pending) -> Event:
        row = pending.request
        payload = {"permission": row, "agent_id": row.agent_id, "task_id": row.task_id}
        return event(
            action,
            payload,
            actor=row.decided_by or row.agent_id,
            board_id=pending.board_id,
            task_id=row.task_id,
            agent_id=row.agent_id,
            turn_id=row.turn_id,
        )


def only_option(options: Sequence[Json], kind: str) -> str | None:
    """The id of the option of this kind, if there is exactly one."""
    found = [option["optionId"] for option in options if option.get("kind") == kind]
    return found[0] if len(found) == 1 else None


def state_of(options: Sequence[Json], option_id: str | None) -> PermissionState:
    """What a choice amounts to, by its kind; an unknown kind counts as allowed, so that no record makes it smaller."""
    if option_id is None:
        return "cancelled"
    kind = next((option.get("kind") for option in options if option.get("optionId") == option_id), None)
    return "rejected" if isinstance(kind, str) and kind.startswith("reject") else "allowed"
