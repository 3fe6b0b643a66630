"""health.check and host.info."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kandev_host.interfaces import Principal, Runtime
from kandev_host.journal import Journal
from kandev_host.protocol.actions.agents import AgentTypes, AvailabilityInfo
from kandev_host.protocol.actions.host import HealthCheck, HealthReply, HostInfo, HostInfoReply, RuntimeInfo
from kandev_host.protocol.reference import PROTOCOL_VERSION
from kandev_host.services.agents import AgentService
from kandev_host.version import __version__

MODE = "local"

Plugins = Callable[[], Sequence[dict[str, Any]]]


class InfoService:
    def __init__(
        self,
        journal: Journal,
        runtimes: Mapping[str, Runtime],
        *,
        default_runtime: str,
        agents: AgentService,
        plugins: Plugins,
        limits: Mapping[str, Any],
        problems: Callable[[], Sequence[str | None]] = tuple,
    ) -> None:
        self._journal = journal
        self._runtimes = runtimes
        self._default_runtime = default_runtime
        self._agents = agents
        self._plugins = plugins
        self._limits = limits
        self._problems = problems

    def health(self, principal: Principal, request: HealthCheck) -> HealthReply:
        del principal, request
        return HealthReply(status="degraded" if any(self._problems()) else "ok", version=__version__, mode=MODE)

    async def info(self, principal: Principal, request: HostInfo) -> HostInfoReply:
        """Probes every runtime for real."""
        del request
        return HostInfoReply(
            version=__version__,
            protocol_version=PROTOCOL_VERSION,
            journal_id=self._journal.state.journal_id,
            plugins=list(self._plugins()),
            runtimes=[await self._runtime(name, runtime) for name, runtime in self._runtimes.items()],
            agent_types=(await self._agents.types.list(principal, AgentTypes())).agent_types,
            limits=dict(self._limits),
        )

    async def _runtime(self, name: str, runtime: Runtime) -> RuntimeInfo:
        found = await runtime.probe()
        return RuntimeInfo(
            name=name,
            default=name == self._default_runtime,
            availability=AvailabilityInfo(ok=found.ok, reason=found.reason, fix=found.fix),
            details=dict(found.details),
        )
