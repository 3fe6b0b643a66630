"""The permission broker: policy, ask, answer, cancel.

Nothing is ever allowed by silence. An option is chosen by its kind, never by its place, name or id; the broker itself
chooses only `allow_once` and `reject_once`, and only where exactly one is offered to allow. A person may choose any
option that was offered. ACP: session/request_permission, session/cancel (which answers all pending ones `cancelled`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import anyio
import msgspec

from kandev_host.errors import Conflict, Forbidden, KandevError, NotFound, Unavailable, ValidationFailed
from kandev_host.events import Event, event
from kandev_host.interfaces import Change, Decision, Expect, Op, Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, PermissionRequest, PermissionRule, Task, now
from kandev_host.protocol import acp
from kandev_host.protocol.acp import Json
from kandev_host.sessions.asking import Answer, Asked, Pending, digest
from kandev_host.sessions.choices import age_s, chosen, only_option, state_of
from kandev_host.sessions.elicitations import ElicitationBroker
from kandev_host.sessions.left import effects_of, is_left, left_question
from kandev_host.sessions.policy import Situation, decide, given_to
from kandev_host.sessions.rulebook import Remember, RuleBook, remembered
from kandev_host.settings import PermissionSettings

logger = logging.getLogger(__name__)

Policy = Callable[[PermissionRequest, Task], Decision | Awaitable[Decision | None] | None]
RECORD_S = 5.0
BROKER = "policy"
UNCLEAR = "it would be allowed, but not exactly one option allows it once"
SCOPE = "permissions:answer"
PAGE = 500


class PermissionBroker:
    """All requests that wait, of all agents. Lives as long as the host.

    What waits outlives its agent only if the host died with it: it is then answered all the same, and the answer
    reaches the run that goes on, if that asks the same (see `left`).
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        policies: Sequence[Policy] = (),
        *,
        settings: PermissionSettings,
        rules: RuleBook | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is monotonic, in seconds: the one of `Situation.expires_at`."""
        self._store = store
        self._journal = journal
        self._policies = policies
        self._settings = settings
        self._clock = clock
        self.rules = rules or RuleBook(store)
        self.elicitations = ElicitationBroker(store, journal, settings)
        self._pending: dict[str, Pending] = {}
        self._judged: dict[str, Pending] = {}  # by plugins, which may take a while
        self._taking = anyio.Lock()  # what was left is either answered or taken up

    # --- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, asked: Asked, situation: Situation) -> Json:
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
        pending = self._judged[request.id] = Pending(
            request, task.board_id, situation, anyio.Event(), noted=asked.noted
        )
        try:
            said = await self._said_by_plugins(request, task)
        finally:
            del self._judged[request.id]
        if pending.void is not None:
            await self._settle(pending, None, "host", pending.void, asked=False, also=pending.also)
            return pending.outcome or acp.cancelled()
        pending.situation = situation = await self._now(situation)
        decision = decide(request, situation, self.rules.all(), said)
        if asked.agent.resumed_from is None:
            return await self._decided(pending, decision) or await self._wait(pending)
        async with self._taking:
            outcome = await self._taken_up(pending, asked.agent, decision) or await self._decided(pending, decision)
        return outcome or await self._wait(pending)

    async def _now(self, situation: Situation) -> Situation:
        """The situation at this time: a preset ends, and what the task may reach holds at once for what runs."""
        relied_on = situation.preset in ("contained", "unattended") and situation.outward is None
        task = await self._store.get(Task, situation.task_id) if relied_on else None
        if task is not None:
            situation = msgspec.structs.replace(situation, outward=given_to(task))
        return situation.at(self._clock())

    async def _decided(self, pending: Pending, decision: Decision) -> Json | None:
        """What policy says; None if a person is asked, who has then been told."""
        if decision.effect != "ask":
            option_id = only_option(
                pending.request.options, "allow_once" if decision.effect == "allow" else "reject_once"
            )
            if decision.effect == "deny" or option_id is not None:
                await self._settle(pending, option_id, BROKER, decision.reason, asked=False, also=pending.also)
                return pending.outcome or acp.cancelled()
            decision = Decision("ask", UNCLEAR)
        pending.request = msgspec.structs.replace(pending.request, reason=decision.reason or None)
        await self._open(pending)
        return None

    async def _said_by_plugins(self, request: PermissionRequest, task: Task) -> list[Decision]:
        decisions = []
        for policy in self._policies:
            try:
                said = policy(request, task)
                decision = await said if isinstance(said, Awaitable) else said
            except Unavailable as error:  # logged where it was noted
                decision = Decision("ask", f"a policy failed: {error.message}")
            except Exception:
                logger.exception("a permission policy failed: asking instead")
                decision = Decision("ask", "a policy failed")
            if decision is not None:
                decisions.append(decision)
        return decisions

    async def _open(self, pending: Pending) -> None:
        request = pending.request
        self._pending[request.id] = pending  # first: the answer may come as soon as the event is out
        try:
            with anyio.CancelScope(shield=True):  # written or not: what is written must find somebody to resolve it
                await self._journal.record(Put(request), self._event("permission.requested", pending), *pending.also)
        except BaseException:
            self._pending.pop(request.id, None)
            raise

    async def _wait(self, pending: Pending) -> Json:
        try:
            with anyio.move_on_after(self._left_s(pending)):
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

    def _left_s(self, pending: Pending) -> float | None:
        limit = self._settings.wait_timeout_s
        return None if limit is None else max(0.0, limit - pending.waited_s)

    # --- what a dead host left ----------------------------------------------------------------------------------------

    async def still_asked(self, row: PermissionRequest, board_id: str, situation: Situation) -> Json:
        """The result for an agent that outlived the host which it had asked."""
        if row.state != "pending":
            return acp.cancelled() if row.option_id is None else acp.selected(row.option_id)
        waited_s = age_s(row)
        pending = Pending(row, board_id, situation.at(self._clock()), anyio.Event(), waited_s=waited_s)
        self._pending[row.id] = pending
        return await self._wait(pending)

    async def _taken_up(self, pending: Pending, agent: AgentInstance, decision: Decision) -> Json | None:
        """Ask no second time what an earlier run asked: `pending` becomes its request, and its answer, if one was
        given since and no policy denies it now, is the result.
        """
        new = pending.request
        row = await left_question(self._store, agent, new.tool_call, new.options)
        if row is None or (row.state != "pending" and decision.effect == "deny"):
            return None
        # Its digest stays: it is of what was shown, whoever was shown it before may answer now.
        pending.request = msgspec.structs.replace(
            row, agent_id=new.agent_id, turn_id=new.turn_id, session_id=new.session_id, tool_call=new.tool_call
        )
        if row.state == "pending" or row.option_id is None:
            pending.waited_s = age_s(row)
            return None
        gone = Conflict("This request was already taken up", state="resolved")
        expect = [Expect(PermissionRequest, row.id, gone, "agent_id", (row.agent_id,))]
        told = self._event("permission.resolved", pending)
        await self._journal.record(Put(pending.request), told, *pending.also, expect=expect)
        return acp.selected(row.option_id)

    async def _left_over(self, row: PermissionRequest) -> Pending | None:
        """A request that waits although its run died with its host; None if this is no such one."""
        agent = await self._store.get(AgentInstance, row.agent_id)
        task = await self._store.get(Task, row.task_id)
        if row.state != "pending" or agent is None or task is None or not is_left(agent):
            return None
        situation = Situation(agent_type=agent.agent_type, task_id=task.id)
        return Pending(row, task.board_id, situation, anyio.Event(), waited_s=age_s(row))

    async def turn_ended(self, agent: AgentInstance) -> None:
        """Nothing of this agent waits any more, nor what earlier runs of its task had left. Never raises
        `KandevError`.
        """
        await self.cancel_all(agent.id, "its turn ended")
        where: list[tuple[str, Op, Any]] = [("task_id", "=", agent.task_id), ("state", "=", "pending")]
        try:
            async with self._taking:
                for row in (await self._store.find(PermissionRequest, where, limit=PAGE)).rows:
                    pending = None if row.agent_id == agent.id else await self._left_over(row)
                    if pending is not None:
                        self._pending[row.id] = pending
                        await self._settle(pending, None, "host", "the agent did not ask again")
        except KandevError as error:
            logger.warning("what an earlier run asked is looked at again later: %s", error)

    async def _answer_left(self, permission_id: str, answer: Answer) -> tuple[PermissionRequest, PermissionRule | None]:
        """Answer a request whose agent is gone: the run that goes on gets it. Raises as `answer`."""
        row = await self._store.get(PermissionRequest, permission_id)
        if row is None:
            raise NotFound("permission", permission_id)
        if row.state != "pending":
            raise Conflict(f"This request was already {row.state}", state=row.state)
        pending = await self._left_over(row)
        if pending is None:
            raise Conflict("This request is being answered, or its agent is gone", state=row.state)
        self._pending[row.id] = pending
        try:
            if self._left_s(pending) == 0:
                await self._settle(pending, None, BROKER, "nobody answered in time")
                raise Conflict("Nobody answered this request in time", state="cancelled")
            return await self._answered(pending, answer)
        finally:
            self._pending.pop(permission_id, None)

    # --- answering --------------------------------------------------------------------------------------------------

    async def answer(
        self,
        permission_id: str,
        *,
        principal: Principal,
        option_id: str | None = None,
        outcome: Literal["cancelled"] | None = None,
        digest: str | None = None,
        remember: Remember | None = None,
    ) -> tuple[PermissionRequest, PermissionRule | None]:
        """The resolved request, and the rule if it is to be remembered, stored with it.

        With a `digest`, only if that is the request's: what its answerer was shown. Raises `NotFound`, `Conflict` for a
        second answer and for another digest, `ValidationFailed` for an option that was not offered and for what cannot
        be remembered, `Forbidden` for anybody but a user.
        """
        if principal.kind != "user":
            raise Forbidden(SCOPE)
        answer = Answer(principal, option_id, outcome, digest, remember)
        pending = self._pending.get(permission_id)
        if pending is None:
            async with self._taking:
                pending = self._pending.get(permission_id)
                if pending is None:
                    return await self._answer_left(permission_id, answer)
        return await self._answered(pending, answer)

    async def _answered(self, pending: Pending, answer: Answer) -> tuple[PermissionRequest, PermissionRule | None]:
        principal, option_id, outcome = answer.principal, answer.option_id, answer.outcome
        if (option_id is None) == (outcome is None):
            raise ValidationFailed("option_id", "Give either option_id or outcome")
        offered = {option.get("optionId") for option in pending.request.options}
        if option_id is not None and option_id not in offered:
            raise ValidationFailed("option_id", f"This request does not offer {option_id!r}")
        if answer.digest not in (None, pending.request.digest):
            raise Conflict("This is not what you were shown: look at the request again", state="changed")
        reason = chosen(principal, pending.request.options, option_id)
        if answer.remember is None:
            return await self._settle(pending, option_id, principal.id, reason), None
        self.rules.check_room(principal.id)
        rule = remembered(pending.request, option_id, answer.remember, pending.situation, principal)
        resolved = await self._settle(pending, option_id, principal.id, reason, also=[Put(rule)])
        self.rules.add(rule)
        return resolved, rule

    async def cancel_all(self, agent_id: str, reason: str) -> int:
        """Answer everything pending of an agent with `cancelled`, elicitations too; how many permissions there were.

        Never raises `KandevError`.
        """
        mine = [pending for pending in self._unresolved() if pending.request.agent_id == agent_id]
        async with anyio.create_task_group() as tasks:  # together: a store that is locked is waited for once
            for pending in mine:
                tasks.start_soon(self._give_up, pending, reason)
            tasks.start_soon(self.elicitations.cancel_all, agent_id, reason)
        return len(mine)

    def pending(self, agent_id: str) -> list[PermissionRequest]:
        """What waits of an agent, oldest first."""
        return [item.request for item in self._pending.values() if item.request.agent_id == agent_id]

    async def call_changed(self, agent_id: str, tool_call_id: str, update: Json) -> None:
        """An update of a call: a request that waits for it is void if anything that was shown is another now."""
        for pending in self._unresolved():
            call = pending.request.tool_call
            if pending.request.agent_id != agent_id or call.get("toolCallId") != tool_call_id:
                continue
            shown, told = effects_of(call), effects_of(update)
            fields = [("rawInput", "rawInput"), ("content", "diffs"), ("locations", "locations")]
            names = [name for field, name in fields if update.get(field) is not None and name in shown]
            if any(told.get(name) != shown[name] for name in names):
                await self._give_up(pending, "what it does changed while it waited")

    def _unresolved(self) -> list[Pending]:
        return [*self._pending.values(), *self._judged.values()]

    # --- settling ---------------------------------------------------------------------------------------------------

    async def _give_up(self, pending: Pending, reason: str) -> None:
        """Cancelled, whether or not that can be recorded: the agent must not wait for a full disk."""
        if pending.request.id in self._judged:
            pending.void = pending.void or reason
            return
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
        self,
        pending: Pending,
        option_id: str | None,
        decided_by: str,
        reason: str,
        *,
        asked: bool = True,
        also: Sequence[Change] = (),
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
                told = self._event("permission.resolved", pending)
                await self._journal.record(Put(resolved), *also, told, expect=expect)
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
