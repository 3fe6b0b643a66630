"""The roles of users: which scopes each holds. The scopes are those of the actions and of plugins' routes."""

from __future__ import annotations

from typing import Literal, get_args

Role = Literal["viewer", "member", "admin"]

_VIEWER = frozenset({"agents:read", "boards:read", "host:read", "metrics:read", "tasks:read", "workspaces:read"})
_MEMBER = _VIEWER | {
    "agents:run",
    "boards:write",
    "captures:read",
    "permissions:answer",
    "shell:open",
    "shell:read",
    "tasks:write",
    "workspaces:write",
}
# `*` holds the others too: audit:read, backups:read, backups:write, settings:write, users:write.
SCOPES: dict[Role, frozenset[str]] = {"viewer": _VIEWER, "member": _MEMBER, "admin": frozenset({"*"})}
ROLES: tuple[Role, ...] = get_args(Role)


def scopes_of(role: Role) -> frozenset[str]:
    """What a user of this role may do. A viewer changes nothing; a member runs agents; an admin may everything."""
    return SCOPES[role]
