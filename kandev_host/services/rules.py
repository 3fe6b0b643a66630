"""What an agent may do without asking: the preset of its launch, checked against where and how it is started."""

from __future__ import annotations

import time

from kandev_host.errors import Forbidden, ValidationFailed
from kandev_host.interfaces import AgentType, Principal, Runtime
from kandev_host.models import Task
from kandev_host.sessions.permissions import SCOPE
from kandev_host.sessions.policy import Situation, given_to
from kandev_host.sessions.presets import Preset
from kandev_host.settings import PermissionSettings

HOW = "use the preset contained, which asks"


def check_preset(
    preset: Preset | None,
    agent_type: AgentType,
    runtime: Runtime,
    *,
    task_id: str,
    outward: str | None,
    settings: PermissionSettings,
) -> Situation:
    """The situation of an agent that is launched now; `outward` is what it is given that leads out of its jail.

    A preset that the request names must fit: raises `ValidationFailed`. One of the settings that does not is `ask`, and
    the situation's `note` says why.
    """
    wanted = preset or settings.preset
    missing = _missing(wanted, agent_type, runtime, outward)
    if missing is not None and preset is not None:
        raise ValidationFailed("preset", f"The preset {wanted} {missing}")
    chosen = wanted if missing is None else "ask"
    return Situation(
        agent_type=agent_type.name,
        task_id=task_id,
        preset=chosen,
        jailed=runtime.confines,
        network=agent_type.network,
        outward=outward,
        read_only=chosen == "read-only" and runtime.confines,
        note=None if missing is None else f"the preset {wanted} of the settings {missing}: the preset is ask",
        expires_at=time.monotonic() + settings.unattended_limit_s if chosen == "unattended" else None,
    )


def check_asker(principal: Principal, preset: Preset | None, settings: PermissionSettings) -> None:
    """Raise `Forbidden` for anybody but a user who names a preset that answers in a user's place.

    Else whoever may not answer could launch what needs no answer. The host starts what users queued.
    """
    if principal.kind not in ("user", "host") and preset not in (None, "ask", "read-only", settings.preset):
        raise Forbidden(SCOPE)


def outward_of(agent_type: AgentType, task: Task, servers: str | None) -> str | None:
    """What the agent is given, beside its network, that leads out of its jail; `servers` is what its MCP servers are.

    Not its own log-in (its variables, `share_login`), nor what its type may reach: without them no model answers.
    """
    if agent_type.credentials:
        return f"{agent_type.name} always has the credential {agent_type.credentials[0]}"
    return given_to(task) or servers


def _missing(preset: Preset, agent_type: AgentType, runtime: Runtime, outward: str | None) -> str | None:
    """What the preset needs and is not there."""
    if preset in ("contained", "unattended") and not runtime.confines:
        return f"needs a jail, and the runtime {runtime.name} has none"
    if preset == "unattended" and agent_type.network != "none":
        return f"needs an agent without a network, and {agent_type.name} has the network {agent_type.network}"
    if preset == "unattended" and outward is not None:
        return f"needs an agent with no way out of its jail, and {outward}: take that away, or {HOW}"
    return None
