"""Options of a permission request: which one is meant, what choosing it amounts to, and how that is told. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kandev_host.interfaces import Principal
from kandev_host.models import PermissionRequest, PermissionState, now
from kandev_host.protocol.acp import Json

NAME_CHARS = 200


def age_s(row: PermissionRequest) -> float:
    """For how long it has been there. By the clock of the wall: no other one goes on while a host is dead."""
    return max(0.0, (now() - row.created_at).total_seconds())


def chosen(principal: Principal, options: Sequence[Json], option_id: str | None) -> str:
    """Why a request of a person's decision is resolved; the names of options are the agent's words."""
    if option_id is None:
        return f"{principal.name} cancelled it"
    name = next((option.get("name") for option in options if option.get("optionId") == option_id), None)
    return f"{principal.name} chose {str(name or option_id)[:NAME_CHARS]}"


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
