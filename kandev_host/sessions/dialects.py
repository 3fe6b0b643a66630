"""What an agent speaks on its pipes, chosen by `AgentType.dialect`."""

from __future__ import annotations

from collections.abc import Callable

from kandev_host.errors import Unavailable
from kandev_host.interfaces import AgentType
from kandev_host.sessions.detect import AutoSession
from kandev_host.sessions.lines import LineSession
from kandev_host.sessions.seed_rpc import SeedSession
from kandev_host.sessions.session import LiveSession
from kandev_host.sessions.stage import Stage

SessionFactory = Callable[[Stage], LiveSession]

DIALECTS: dict[str, SessionFactory] = {
    "acp": LiveSession,
    "seed-rpc": SeedSession,
    "lines": LineSession,
    "auto": AutoSession,
}


def dialect(agent_type: AgentType) -> SessionFactory:
    """What makes the sessions of this type. Raises `Unavailable` for a dialect that this host does not speak."""
    factory = DIALECTS.get(agent_type.dialect)
    if factory is None:
        raise Unavailable(
            f"The agent {agent_type.name} speaks {agent_type.dialect}, which this host does not",
            fix=f"give it one of the dialects {', '.join(DIALECTS)}",
        )
    return factory
