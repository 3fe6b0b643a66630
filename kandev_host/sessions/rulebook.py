"""The rules of permission that hold: those of the settings, and those that users had remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Principal, Store
from kandev_host.models import Effect, PermissionRequest, PermissionRule
from kandev_host.protocol.acp import Json
from kandev_host.sessions.commands import simple_command
from kandev_host.sessions.policy import Situation, decide
from kandev_host.sessions.presets import WRITES, in_workspace, kind_of, paths_of
from kandev_host.settings import RuleSettings

Remember = Literal["task", "agent_type"]
SETTINGS = "settings:"
EACH = 200
STORED_RULES = 5000
PAGE = 500
# A remembered `allow_always` would be the agent's memory and the host's: only the host's can be looked at.
_EFFECTS: dict[str, Effect] = {"allow_once": "allow", "reject_once": "deny", "reject_always": "deny"}


class RuleBook:
    """All rules, in memory, so that deciding waits for nothing. `load` before the first agent is started."""

    def __init__(self, store: Store, settings: Mapping[str, RuleSettings] | None = None) -> None:
        self._store = store
        self.of_settings: list[PermissionRule] = []
        self._stored: dict[str, PermissionRule] = {}
        self.reload(settings or {})

    def reload(self, settings: Mapping[str, RuleSettings]) -> None:
        """These are the rules of the settings from now on."""
        self.of_settings = [_of_settings(name, rule) for name, rule in settings.items()]

    async def load(self) -> None:
        """Read what is stored."""
        self._stored.clear()
        cursor: str | None = None
        while True:
            page = await self._store.find(PermissionRule, limit=PAGE, cursor=cursor)
            self._stored.update((rule.id, rule) for rule in page.rows)
            cursor = page.next_cursor
            if cursor is None:
                return

    def all(self) -> list[PermissionRule]:
        """Those of the settings first."""
        return [*self.of_settings, *self._stored.values()]

    def check_room(self, user_id: str) -> None:
        """Raise `ValidationFailed` when too many are stored already, of this user or of all."""
        if sum(rule.created_by == user_id for rule in self._stored.values()) >= EACH:
            raise ValidationFailed("remember", f"{EACH} rules of yours are stored already: delete some")
        if len(self._stored) >= STORED_RULES:
            raise ValidationFailed("remember", f"{STORED_RULES} rules are stored already: delete some")

    def add(self, rule: PermissionRule) -> None:
        """It is stored, and holds from now on."""
        self._stored[rule.id] = rule

    def discard(self, rule_id: str) -> None:
        """It is stored no longer."""
        self._stored.pop(rule_id, None)


def remembered(
    request: PermissionRequest, option_id: str | None, scope: Remember, situation: Situation, principal: Principal
) -> PermissionRule:
    """The rule that answers this call, and no other, as it is answered now.

    Raises `ValidationFailed` for what no rule can say: a call that is always asked for, a command that a shell could
    make something else of, several paths, an option that is no plain yes or no.
    """
    option: Json = next((item for item in request.options if item.get("optionId") == option_id), {})
    effect = _EFFECTS.get(str(option.get("kind")))
    if effect is None:
        raise _not("only allow_once, reject_once and reject_always can be remembered")
    rule = PermissionRule(
        effect=effect,
        task_id=request.task_id if scope == "task" else None,
        agent_type=situation.agent_type,
        kind=kind_of(request.tool_call),
        path=_only_path(request.tool_call),
        command=_whole_command(request.tool_call),
        created_by=principal.id,
    )
    if decide(request, situation, [rule]).effect != effect:
        raise _not("what this call does is always asked for")
    return rule


def _only_path(call: Json) -> str | None:
    """Of a call that writes, the one path, as a pattern that only it meets."""
    if kind_of(call) not in WRITES:
        return None
    paths = {in_workspace(path) for path in paths_of(call)}
    if len(paths) != 1:
        raise _not(f"the call names {len(paths) or 'no'} paths, and a rule names one")
    return "".join(f"[{char}]" if char in "*?[" else char for char in paths.pop())


def _whole_command(call: Json) -> tuple[str, ...] | None:
    if kind_of(call) != "execute":
        return None
    words = simple_command(call)
    if words is None:
        raise _not("this is no plain command, with nothing in it that a shell changes")
    return words


def _not(why: str) -> ValidationFailed:
    return ValidationFailed("remember", f"This cannot be remembered: {why}; answer without remembering")


def _of_settings(name: str, rule: RuleSettings) -> PermissionRule:
    return PermissionRule(
        id=f"{SETTINGS}{name}",
        effect=rule.effect or "ask",
        agent_type=rule.agent_type,
        kind=rule.kind,
        path=rule.path,
        command=rule.command,
        reason=rule.reason,
        created_by="settings",
    )


def concerning(rules: Sequence[PermissionRule], *, agent_type: str | None, task_id: str | None) -> list[PermissionRule]:
    """Those that are for this agent type and for this task; None is not asked for."""
    return [rule for rule in rules if agent_type in (None, rule.agent_type) and task_id in (None, rule.task_id)]
