"""permission.*: what agents ask for, the answers, and the rules that were made of answers."""

from __future__ import annotations

from typing import Any

import anyio

from kandev_host.errors import Conflict, Forbidden, NotFound, ValidationFailed
from kandev_host.interfaces import ALL_BOARDS, Expect, Op, Principal, Remove, Store
from kandev_host.journal import Journal
from kandev_host.models import PermissionRequest, PermissionRule, Task
from kandev_host.protocol.actions.agents import PermissionList, PermissionReply, PermissionRespond, PermissionsReply
from kandev_host.protocol.actions.permissions import (
    PermissionRuleDelete,
    PermissionRuleReply,
    PermissionRules,
    PermissionRulesReply,
)
from kandev_host.services.rows import asked_for, need
from kandev_host.sessions.permissions import SCOPE, PermissionBroker
from kandev_host.sessions.rulebook import concerning


class PermissionService:
    def __init__(self, store: Store, journal: Journal, broker: PermissionBroker) -> None:
        self._store = store
        self._journal = journal
        self._broker = broker

    async def list(self, principal: Principal, request: PermissionList) -> PermissionsReply:
        """Oldest first. Raises `NotFound` for an unknown agent or task."""
        del principal
        page = await asked_for(self._store, PermissionRequest, request)
        return PermissionsReply(permissions=page.rows, next_cursor=page.next_cursor)

    async def respond(self, principal: Principal, request: PermissionRespond) -> PermissionReply:
        """Answer a request. Raises as `PermissionBroker.answer`, and `Forbidden` for a rule that holds everywhere."""
        if (request.option_id is None) == (request.outcome is None):
            raise ValidationFailed("option_id", "Give either option_id or outcome")
        if request.remember == "agent_type" and not principal.may(ALL_BOARDS):
            why = "Such a rule holds on all boards; remember it for this task, or ask an admin"
            raise Forbidden(ALL_BOARDS, why, field="remember")
        answered, rule = await self._broker.answer(
            request.permission_id,
            principal=principal,
            option_id=request.option_id,
            outcome=request.outcome,
            digest=request.digest,
            remember=request.remember,
        )
        return PermissionReply(permission=answered, rule=rule)

    async def rules(self, principal: Principal, request: PermissionRules) -> PermissionRulesReply:
        """Oldest first, after those of the settings. Raises `NotFound` for an unknown task."""
        del principal
        if request.task_id is not None:
            await need(self._store, Task, request.task_id)
        named = {"agent_type": request.agent_type, "task_id": request.task_id}
        where: list[tuple[str, Op, Any]] = [(name, "=", value) for name, value in named.items() if value is not None]
        page = await self._store.find(PermissionRule, where, limit=request.limit, cursor=request.cursor)
        first = concerning(self._broker.rules.of_settings, **named) if request.cursor is None else []
        return PermissionRulesReply(rules=[*first, *page.rows], next_cursor=page.next_cursor)

    async def rule_delete(self, principal: Principal, request: PermissionRuleDelete) -> PermissionRuleReply:
        """The rule that was. Raises `NotFound`, `Conflict` for one of the settings, `Forbidden` for all but users."""
        if principal.kind != "user":
            raise Forbidden(SCOPE)
        if any(rule.id == request.rule_id for rule in self._broker.rules.of_settings):
            raise Conflict("This rule stands in the settings: remove it there", state="settings")
        rule = await need(self._store, PermissionRule, request.rule_id)
        gone = NotFound("permission_rule", rule.id)
        expect = [Expect(PermissionRule, rule.id, gone)]
        with anyio.CancelScope(shield=True):  # what is stored no longer must not hold any more
            await self._journal.record(Remove(PermissionRule, rule.id), expect=expect)
        self._broker.rules.discard(rule.id)
        return PermissionRuleReply(rule=rule)
