"""The roles of users: which scopes each holds. The scopes are those of the actions and of plugins' routes.

Beside its scope, whoever changes something on a board must own the board (`gateway.access`), or hold `ALL_BOARDS`.
"""

from __future__ import annotations

from typing import Literal, get_args

Role = Literal["viewer", "member", "admin"]
ALL_BOARDS = "boards:all"
"""What others own counts as one's own."""

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
# `*` holds the others too: audit:read, backups:read, backups:write, boards:all, settings:write, users:write.
SCOPES: dict[Role, frozenset[str]] = {"viewer": _VIEWER, "member": _MEMBER, "admin": frozenset({"*"})}
ROLES: tuple[Role, ...] = get_args(Role)


def scopes_of(role: Role) -> frozenset[str]:
    """A viewer changes nothing, a member works on boards of its own, an admin may everything."""
    return SCOPES[role]
