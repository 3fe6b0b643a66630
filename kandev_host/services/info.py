"""health.check and host.info."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kandev_host.interfaces import Availability, Principal
from kandev_host.journal import Journal
from kandev_host.protocol.actions.agents import AgentTypes, AvailabilityInfo
from kandev_host.protocol.actions.host import (
    HealthCheck,
    HealthReply,
    HostInfo,
    HostInfoReply,
    ProblemInfo,
    RuntimeInfo,
)
from kandev_host.protocol.reference import PROTOCOL_VERSION
from kandev_host.services.agents import AgentService
from kandev_host.services.detail import Details
from kandev_host.services.health import Health
from kandev_host.version import __version__

MODE = "local"


class Plugin(Protocol):
    """What is known of a plugin."""

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str | None: ...

    def told(self) -> dict[str, Any]: ...


Plugins = Callable[[], Sequence[Plugin]]


class InfoService:
    def __init__(
        self,
        journal: Journal,
        health: Health,
        details: Details,
        *,
        default_runtime: str,
        agents: AgentService,
        plugins: Plugins,
        limits: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._journal = journal
        self._health = health
        self._details = details
        self._default_runtime = default_runtime
        self._agents = agents
        self._plugins = plugins
        self._limits = limits

    def health(self, principal: Principal, request: HealthCheck) -> HealthReply:
        del principal, request
        return HealthReply(status=self._health.status, version=__version__, mode=MODE)

    async def info(self, principal: Principal, request: HostInfo) -> HostInfoReply:
        """Probes every runtime for real, within a bounded time; the rest is from memory, or read in time."""
        del request
        details, probed = self._details, await self._health.probe()
        problems = self._health.problems()
        return HostInfoReply(
            version=__version__,
            protocol_version=PROTOCOL_VERSION,
            journal_id=self._journal.state.journal_id,
            status="degraded" if problems else "ok",
            problems=[ProblemInfo(part=each.part, message=each.message, fix=each.fix) for each in problems],
            process=details.process(),
            store=await details.of_store(),
            bus=details.of_bus(),
            disk=details.disk(),
            queue=await details.queue(),
            backup=details.backups.state,
            settings=details.of_settings(),
            plugins=[each.told() for each in self._plugins()],
            runtimes=[self._runtime(name, found) for name, found in probed.items()],
            agent_types=(await self._agents.types.list(principal, AgentTypes())).agent_types,
            limits=dict(self._limits()),
        )

    def _runtime(self, name: str, found: Availability) -> RuntimeInfo:
        return RuntimeInfo(
            name=name,
            default=name == self._default_runtime,
            availability=AvailabilityInfo(ok=found.ok, reason=found.reason, fix=found.fix),
            details=dict(found.details),
        )
