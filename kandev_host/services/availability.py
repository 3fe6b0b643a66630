"""Can an agent of this type be started here and now? If not: why, and the exact thing to do about it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from kandev_host.errors import Unavailable
from kandev_host.interfaces import AgentType, Availability, Runtime


async def agent_availability(
    agent_type: AgentType, runtime: Runtime, probed: Availability | None = None
) -> Availability:
    """The first thing that stands in the way. `probed` spares a second probe of the same runtime."""
    place = probed or await runtime.probe()
    if not place.ok:
        return Availability(False, place.reason, place.fix)
    try:
        command = await runtime.locate(agent_type.command[0], agent_type.image)
    except Unavailable as error:  # it has gone since the probe
        return Availability(False, error.message, error.details.get("fix"))
    if not command.ok:
        install = None if command.details.get("found") else agent_type.install_hint
        return Availability(False, command.reason, install or command.fix)
    return _environment(agent_type, os.environ) or _network(agent_type) or Availability(True)


def not_open(name: str, running: Collection[str], installed: Collection[str]) -> tuple[str, str]:
    """Of a runtime that the host did not open: why, and what to do about it."""
    if name in installed:
        fix = f"Add the table [runtime.{name}] to the settings, which may be empty, and start the host again"
        return f"The runtime {name!r} is not running", f"{fix}; or choose one of {', '.join(sorted(running))}"
    return f"There is no runtime {name!r}", f"Choose one of {', '.join(sorted({*running, *installed}))}"


def _environment(agent_type: AgentType, environment: Mapping[str, str]) -> Availability | None:
    missing = [name for name in agent_type.env_required if name not in agent_type.env and not environment.get(name)]
    if not missing:
        return None
    names = ", ".join(missing)
    fix = f"Start the host with {names} set, or give it in [agents.{agent_type.name}] env of the settings"
    return Availability(False, f"The agent needs {names} in the environment", fix)


def _network(agent_type: AgentType) -> Availability | None:
    if not agent_type.hosts or agent_type.network != "none" or agent_type.allow:
        return None
    fix = (
        f'Set [agents.{agent_type.name}] network = "allowlist" in the settings, '
        'or allow = ["127.0.0.1:PORT"] for a model server of this machine'
    )
    reason = f"The agent needs the network ({', '.join(agent_type.hosts)}), and its jail has none"
    return Availability(False, reason, fix)
