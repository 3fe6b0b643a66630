"""Who acts: the request that is being served, for whoever writes down what came of it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import msgspec

from kandev_host.interfaces import Principal
from kandev_host.models import AuditKind, AuditRow

TEXT_LIMIT = 200
DETAILS_LIMIT_BYTES = 4096
ITEMS_LIMIT = 20

# What changes something and is not audited by itself: it is everyday work of which the history of tasks, transcripts
# and the commands of shells tell. Being refused any of it is audited all the same.
EVERYDAY = frozenset({
    "agent.cancel", "agent.prompt", "auth.login", "auth.refresh", "column.create", "column.move", "column.update",
    "orchestrator.prompt", "queue.remove", "queue.update", "shell.input", "shell.resize", "shell.run",
    "shell.signal", "task.create", "task.move", "task.state", "task.update", "workspace.snapshot",
})  # fmt: skip
# But for what hands something out.
GRANTS = ("credentials", "allow", "mcp_servers", "directories")

_KINDS: dict[str, AuditKind] = {
    "agent.authenticate": "credential",
    "agent.logout": "credential",
    "agent.type_update": "settings",
    "permission.rule_delete": "policy",
    "agent.set_option": "policy",
}
_PREFIXES: dict[str, AuditKind] = {
    "agent": "launch", "audit": "audit", "auth": "auth", "backup": "backup", "elicitation": "approval", "key": "auth",
    "orchestrator": "launch", "permission": "approval", "settings": "settings", "shell": "launch", "user": "auth",
}  # fmt: skip
_DELETES = ("delete", "remove", "revoke")

# Fields of requests whose values are shown; of every other one only numbers, yes and no, and ids are.
_SHOWN = frozenset({
    "agent_type", "allow", "branch", "credentials", "directories", "enabled", "mcp_servers", "name", "option",
    "option_id", "outcome", "owner", "preset", "push_to", "remember", "role", "runtime", "scopes", "state", "user",
    "username",
})  # fmt: skip
_PLACES = frozenset({"board_id", "task_id", "agent_id"})


class Acting:
    """One request: whose, from which address, by which task; and the row that is `owed` until something is written."""

    __slots__ = ("address", "owed", "principal", "task")

    def __init__(self, principal: Principal, address: str, owed: AuditRow | None = None) -> None:
        self.principal = principal
        self.address = address
        self.owed = None if owed is None else named(owed, principal, address)
        self.task = asyncio.current_task()


ACTING: ContextVar[Acting | None] = ContextVar("kandev_acting", default=None)


def take_owed() -> AuditRow | None:
    """The row of this request, for whoever writes it at a moment of its own."""
    acting = ACTING.get()
    if acting is None:
        return None
    owed, acting.owed = acting.owed, None
    return owed


def named(row: AuditRow, principal: Principal, address: str) -> AuditRow:
    """The row with all that is known of its actor; of a log-in, with what it was done."""
    details = {**row.details, "credential": principal.credential} if row.kind == "auth" else row.details
    return msgspec.structs.replace(
        row,
        actor=principal.id,
        actor_kind=principal.kind,
        actor_name=text(principal.name),
        address=address,
        details=details,
    )


def is_audited(action: str, request: Any) -> bool:
    """Does carrying out this request, which changes something, always leave a row?"""
    return action not in EVERYDAY or any(getattr(request, name, None) for name in GRANTS)


def row_of(action: str, request: Any, outcome: str = "ok") -> AuditRow:
    """What the request was about: the ids in it, and what is shown of its other fields."""
    fields: dict[str, Any] = {}
    for name in getattr(type(request), "__struct_fields__", ()):
        value = getattr(request, name)
        if value is not None and value is not msgspec.UNSET and name not in _PLACES and _is_shown(name, value):
            fields[name] = plain(value)
    if isinstance(getattr(request, "password", None), str):
        fields["password"] = True  # that there was one
    places = {name: text(getattr(request, name, None)) for name in _PLACES}
    return AuditRow(kind=kind_of(action), action=action, outcome=outcome, details=fields, **places)


def kind_of(action: str) -> AuditKind:
    prefix, _, verb = action.rpartition(".")
    if action in _KINDS:
        return _KINDS[action]
    return "deletion" if verb.endswith(_DELETES) else _PREFIXES.get(prefix, "action")


def _is_shown(name: str, value: Any) -> bool:
    return name in _SHOWN or name.endswith("_id") or isinstance(value, bool | int)


def plain(value: Any) -> Any:
    """What JSON and the store take of it, and not much of it."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [text(str(item)) for item in list(value)[:ITEMS_LIMIT]]
    return value if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 53) else None


def text(value: Any) -> Any:
    """A string that every store takes, cut to what a line shows; anything else is None."""
    if not isinstance(value, str):
        return None
    return value[:TEXT_LIMIT].encode("utf-8", "replace").decode()
