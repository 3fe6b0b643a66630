"""permission.rules and permission.rule_delete."""

from __future__ import annotations

from kandev_host.models import PermissionRule
from kandev_host.protocol.actions.fields import AgentName, Id, PageRequest, Request, Response


class PermissionRules(PageRequest, frozen=True, kw_only=True):
    """Those that name this agent type and this task."""

    agent_type: AgentName | None = None
    task_id: Id | None = None


class PermissionRuleDelete(Request, frozen=True, kw_only=True):
    rule_id: Id


class PermissionRulesReply(Response, frozen=True, kw_only=True):
    """Oldest first; before the first page, and beyond its limit, those of the settings (`settings:NAME`)."""

    rules: list[PermissionRule]
    next_cursor: str | None = None


class PermissionRuleReply(Response, frozen=True, kw_only=True):
    rule: PermissionRule
