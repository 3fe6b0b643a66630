"""health.check and host.info."""

from __future__ import annotations

from datetime import datetime
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


class ProblemInfo(Response, frozen=True, kw_only=True):
    """Why the host is degraded: the part of it, what is wrong there, and what to do."""

    part: str
    message: str
    fix: str | None


class ProcessInfo(Response, frozen=True, kw_only=True):
    """`memory_bytes` is what the host alone takes (RSS), without its agents."""

    pid: int
    started_at: datetime
    uptime_s: float
    addresses: list[str]
    memory_bytes: int | None
    sockets: int


class StoreInfo(Response, frozen=True, kw_only=True):
    """`size_bytes` is with the write-ahead log, `log_bytes`; `waiting_commits` wait to be written.

    `checked_at` is when the database was last found sound: each backup reads all of it.
    """

    name: str
    answers: bool | None
    size_bytes: int | None
    log_bytes: int | None
    oldest: int
    head: int
    waiting_commits: int
    waiting_bytes: int
    committed_at: datetime | None
    checked_at: datetime | None


class BusInfo(Response, frozen=True, kw_only=True):
    """`lag_s` is how old the last events were when they had been delivered."""

    name: str
    subscriptions: int | None
    lag_s: float | None


class DiskInfo(Response, frozen=True, kw_only=True):
    """Of the data folder. Below `low_bytes` the host is degraded."""

    path: str
    size_bytes: int
    free_bytes: int
    low_bytes: int


class QueueInfo(Response, frozen=True, kw_only=True):
    """Tasks that wait for an agent and tasks that have one; null where the store did not say in time."""

    waiting: int | None
    running: int | None
    capacity: int
    live_agents: int


class BackupState(Response, frozen=True, kw_only=True):
    """Of the backups that the host makes by itself; `problem` is why the last one failed."""

    enabled: bool
    last_at: datetime | None
    next_at: datetime | None
    problem: str | None


class SettingsState(Response, frozen=True, kw_only=True):
    """`loads` counts how often the settings were read: 1 at the start, one more for each reload, also a failed one.

    `loaded_at` is when those that hold were read: a reload that was refused leaves it.
    `changed` is what the last reload changed; `restart` what the file says and only a restart makes true; `problem`
    why the last reload was refused.
    """

    path: str | None
    loads: int
    loaded_at: datetime
    changed: list[str]
    restart: list[str]
    problem: str | None


class HostInfoReply(Response, frozen=True, kw_only=True):
    version: str
    protocol_version: int
    journal_id: str
    status: Literal["ok", "degraded"]
    problems: list[ProblemInfo]
    process: ProcessInfo
    store: StoreInfo
    bus: BusInfo
    disk: DiskInfo | None
    queue: QueueInfo
    backup: BackupState
    settings: SettingsState
    plugins: list[dict[str, Any]]
    runtimes: list[RuntimeInfo]
    agent_types: list[AgentTypeInfo]
    limits: dict[str, Any]
