"""Which runtimes have been heard of since the host started, and what may still run where none was."""

from __future__ import annotations

import msgspec

from kandev_host.errors import Unavailable


class Silence(msgspec.Struct, frozen=True):
    """Why a runtime did not answer, and what can be done about it, where that is known."""

    reason: str | None = None
    fix: str | None = None


class Reach(msgspec.Struct):
    """Filled by the recovery. A runtime in `silent` starts nothing until it answers. `agents` are those (by id, each
    with its runtime) that a host which died left there: they may still run, so they count as live.
    """

    silent: dict[str, Silence] = msgspec.field(default_factory=dict)
    agents: dict[str, str] = msgspec.field(default_factory=dict)

    def check(self, agent_id: str) -> None:
        """Raise `Unavailable` for an agent of which nobody knows whether it runs."""
        runtime = self.agents.get(agent_id)
        if runtime is not None:
            known = self.silent.get(runtime)
            fix = {"fix": known.fix} if known is not None and known.fix else {}
            raise Unavailable(
                f"{_unheard(runtime)}, so nobody knows whether this agent still runs; it is asked again every minute",
                runtime=runtime,
                agent_id=agent_id,
                **fix,
            )

    def why(self, runtime: str) -> tuple[str, str]:
        """What a silent runtime said when it was asked last, and what to do."""
        silence = self.silent.get(runtime) or Silence()
        fix = silence.fix or "see what kandev-host doctor says of it"
        return silence.reason or _unheard(runtime), f"{fix.rstrip('.')}; the host asks it again every minute"


def _unheard(runtime: str) -> str:
    return f"The runtime {runtime!r} has not answered since the host started"
