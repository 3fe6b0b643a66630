"""The agent types: what plugins and settings bring, what users changed, and whether each can be started here."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from msgspec import UNSET
from msgspec.structs import replace

from kandev_host.errors import NotFound, ValidationFailed
from kandev_host.interfaces import AgentType, Availability, Principal, Put, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.models import AgentTypeRow, Limits, now
from kandev_host.protocol.actions.agents import (
    AgentTypeInfo,
    AgentTypeReply,
    AgentTypes,
    AgentTypesReply,
    AgentTypeUpdate,
    AvailabilityInfo,
)
from kandev_host.services.availability import agent_availability, not_open
from kandev_host.services.credentials.shown import shown
from kandev_host.services.launches import merge_limits
from kandev_host.services.locks import Locks
from kandev_host.services.reach import Reach
from kandev_host.services.rows import every
from kandev_host.sessions.options import MODE
from kandev_host.settings import CredentialSettings

PROBE_KEPT_S = 60.0


class AgentTypeService:
    """What a user stores (a row of `AgentTypeRow`) goes over what plugins and settings say, also after a restart.

    Only whether a type may be started, its limits, and the options of its sessions: what runs, and what it may reach,
    is for plugins and settings.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        locks: Locks,
        agent_types: Mapping[str, AgentType],
        *,
        runtimes: Mapping[str, Runtime],
        default_runtime: str,
        reach: Reach,
        credentials: Mapping[str, CredentialSettings] | None = None,
        installed: Collection[str] = (),
    ) -> None:
        self._store = store
        self._journal = journal
        self._locks = locks
        self._given = agent_types
        self._runtimes = runtimes
        self._installed = installed
        self._reach = reach
        self._credentials = credentials or {}
        self._rows: dict[str, AgentTypeRow] = {}
        self._probed: dict[str, tuple[float, Availability]] = {}
        self.default_runtime = default_runtime
        self.on_change: Callable[[], None] = lambda: None

    async def load(self) -> None:
        """Read what users changed."""
        self._rows = {row.name: row async for row in every(self._store, AgentTypeRow, [])}

    def reload(self, agent_types: Mapping[str, AgentType]) -> None:
        """These are what plugins and settings bring from now on; agents that live go on as they were started."""
        self._given = agent_types
        self._probed.clear()

    # --- for the other services -----------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Of all agent types, in order."""
        return sorted(self._given)

    def get(self, name: str) -> AgentType | None:
        """The agent type of this name, as it is now."""
        given, row = self._given.get(name), self._rows.get(name)
        if given is None or row is None:
            return given
        limits = given.default_resources if row.default_resources is None else row.default_resources
        options = {**given.options, **row.default_options}
        enabled = given.enabled and row.enabled
        return replace(given, enabled=enabled, default_resources=limits, options=options)

    def need(self, name: str) -> AgentType:
        """The same. Raises `NotFound` with the known ones."""
        found = self.get(name)
        if found is None:
            raise NotFound("agent_type", name, known=self.names())
        return found

    def limit_of(self, name: str) -> int | None:
        """How many agents of this type the queue may start; None is no limit of its own."""
        found = self._given.get(name)
        return None if found is None else found.max_agents

    async def availability(self, agent_type: AgentType, runtime_name: str | None = None) -> Availability:
        """Whether it can be started; a runtime that was well is not probed again for a minute."""
        if not agent_type.enabled:
            fix = f"Set [agents.{agent_type.name}] enabled = true in the settings"
            if self._given[agent_type.name].enabled:
                fix = f"kandev-host agent enable {agent_type.name}"
            return Availability(False, f"The agent {agent_type.name!r} is disabled", fix)
        name = runtime_name or agent_type.runtime or self.default_runtime
        if name in self._reach.silent:
            return Availability(False, *self._reach.why(name))
        runtime = self._runtimes.get(name)
        kept = self._probed.get(name)
        if runtime is None:
            return Availability(False, *not_open(name, self._runtimes, self._installed))
        if kept is None or time.monotonic() - kept[0] > PROBE_KEPT_S or not kept[1].ok:
            kept = self._probed[name] = (time.monotonic(), await runtime.probe())
        return await agent_availability(agent_type, runtime, kept[1])

    # --- actions --------------------------------------------------------------------------------------------------

    async def list(self, principal: Principal, request: AgentTypes) -> AgentTypesReply:
        """All types by name, each with whether it can be started here and what to do if not."""
        del principal, request
        return AgentTypesReply(agent_types=[await self._describe(self.need(name)) for name in self.names()])

    async def update(self, principal: Principal, request: AgentTypeUpdate) -> AgentTypeReply:
        """Change the fields that are there, from the next launch on. Raises `NotFound`, `ValidationFailed`."""
        del principal
        async with self._locks.hold(f"agent_type:{request.name}"):
            self.need(request.name)
            if request.enabled is True and not self._given[request.name].enabled:
                raise ValidationFailed("enabled", f"The settings disable this agent: [agents.{request.name}] enabled")
            row = self._rows.get(request.name) or AgentTypeRow(name=request.name)
            limits = row.default_resources if request.default_resources is UNSET else request.default_resources
            if limits is not None:
                limits = merge_limits(Limits(), limits, "default_resources")
            enabled = row.enabled if request.enabled is UNSET else request.enabled
            options = row.default_options if request.default_options is UNSET else request.default_options or {}
            if request.default_options is not UNSET:
                self._check_mode(request.name, options.get(MODE))
            if (enabled, limits, options) != (row.enabled, row.default_resources, row.default_options):
                row = replace(row, enabled=enabled, default_resources=limits, default_options=options, updated_at=now())
                await self._journal.record(Put(row))
                self._rows[row.name] = row
                self.on_change()
        return AgentTypeReply(agent_type=await self._describe(self.need(request.name)))

    def _check_mode(self, name: str, mode: str | bool | None) -> None:
        asking = self._given[name].asking_modes
        if mode is not None and asking and mode not in asking:
            told = f"In the mode {mode!r} the agent would not ask; use one of {', '.join(asking)}"
            raise ValidationFailed(f"default_options.{MODE}", told)

    async def _describe(self, agent_type: AgentType) -> AgentTypeInfo:
        found = await self.availability(agent_type)
        return AgentTypeInfo(
            name=agent_type.name,
            title=agent_type.title,
            description=agent_type.description,
            runtime=agent_type.runtime or self.default_runtime,
            image=agent_type.image,
            command=list(agent_type.command),
            network=agent_type.network,
            allow=list(agent_type.allow),
            hosts=list(agent_type.hosts),
            env_required=list(agent_type.env_required),
            credentials=shown(agent_type, self._credentials),
            capabilities=list(agent_type.capabilities),
            default_resources=agent_type.default_resources,
            default_options=dict(agent_type.options),
            asking_modes=list(agent_type.asking_modes),
            install_hint=agent_type.install_hint,
            enabled=agent_type.enabled,
            availability=AvailabilityInfo(ok=found.ok, reason=found.reason, fix=found.fix),
        )
