"""Which runtimes have been heard of since the host started, and what may still run where none was."""

from __future__ import annotations

from dataclasses import dataclass, field

from kandev_host.errors import Unavailable


@dataclass(slots=True)
class Reach:
    """Filled by the recovery. A runtime in `silent` starts nothing until it answers. `agents` are those (by id, each
    with its runtime) that a host which died left there: they may still run, so they count as live.
    """

    silent: set[str] = field(default_factory=set)
    agents: dict[str, str] = field(default_factory=dict)

    def check(self, agent_id: str) -> None:
        """Raise `Unavailable` for an agent of which nobody knows whether it runs."""
        runtime = self.agents.get(agent_id)
        if runtime is not None:
            raise Unavailable(
                f"{unheard(runtime)}, so nobody knows whether this agent still runs; it is asked again every minute",
                runtime=runtime,
                agent_id=agent_id,
            )


def unheard(runtime: str) -> str:
    return f"The runtime {runtime!r} has not answered since the host started"
