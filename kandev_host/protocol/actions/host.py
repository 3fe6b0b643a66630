"""health.check and host.info."""

from __future__ import annotations

from typing import Any, Literal

from kandev_host.protocol.actions.agents import AgentTypeInfo, AvailabilityInfo
from kandev_host.protocol.actions.fields import Request, Response


class HealthCheck(Request, frozen=True, kw_only=True):
    pass


class HostInfo(Request, frozen=True, kw_only=True):
    pass


class HealthReply(Response, frozen=True, kw_only=True):
    """`mode` is `local` (one user, a token) as long as there is no other."""

    status: Literal["ok", "degraded"]
    service: str = "kandev-host"
    version: str
    mode: str


class RuntimeInfo(Response, frozen=True, kw_only=True):
    name: str
    default: bool
    availability: AvailabilityInfo
    details: dict[str, Any]


class HostInfoReply(Response, frozen=True, kw_only=True):
    version: str
    protocol_version: int
    journal_id: str
    plugins: list[dict[str, Any]]
    runtimes: list[RuntimeInfo]
    agent_types: list[AgentTypeInfo]
    limits: dict[str, Any]
