"""Every setting of the host: its type, default, unit (in the key) and meaning.

`settings.load` fills these from a TOML file, the environment and flags; `config/example.toml` is written from them.
A provider's own settings live in its plugin: here they are raw tables, decoded when the provider is selected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from kandev_host.settings.agents import (
    AgentOverride,
    McpSettings,
    OrchestratorSettings,
    PermissionSettings,
    RuleSettings,
    SessionSettings,
)
from kandev_host.settings.base import Table
from kandev_host.settings.credentials import CredentialSettings
from kandev_host.settings.places import DirectorySettings, SnapshotSettings, WorkspaceSettings
from kandev_host.settings.repositories import RepositorySettings
from kandev_host.settings.server import (
    BackupSettings,
    GatewaySettings,
    JournalSettings,
    LogSettings,
    PluginsSettings,
    ServerSettings,
    UseSettings,
)
from kandev_host.settings.shells import ShellSettings

__all__ = [
    "AgentOverride", "BackupSettings", "CredentialSettings", "DirectorySettings", "GatewaySettings",
    "JournalSettings", "LogSettings", "McpSettings",
    "OrchestratorSettings", "PermissionSettings", "PluginsSettings", "RawTables", "RepositorySettings",
    "RuleSettings", "ServerSettings",
    "SessionSettings", "Settings", "ShellSettings", "SnapshotSettings", "Table", "UseSettings", "WorkspaceSettings",
]  # fmt: skip

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RawTables = dict[str, dict[str, Any]]


class Settings(Table, frozen=True, kw_only=True):
    """All settings. `agents`, `rules`, `mcp`, `directories`, `credentials` and `repositories` have a table per name.

    The last six hold a table per provider, named as in `use`.
    """

    LIVE: ClassVar[frozenset[str]] = frozenset({"agents", "rules", "mcp", "repositories"})

    server: ServerSettings = ServerSettings()
    gateway: GatewaySettings = GatewaySettings()
    use: UseSettings = UseSettings()
    session: SessionSettings = SessionSettings()
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    journal: JournalSettings = JournalSettings()
    backup: BackupSettings = BackupSettings()
    permissions: PermissionSettings = PermissionSettings()
    workspace: WorkspaceSettings = WorkspaceSettings()
    shells: ShellSettings = ShellSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    log: LogSettings = LogSettings()
    plugins: PluginsSettings = PluginsSettings()
    agents: dict[str, AgentOverride] = msgspec.field(default_factory=dict)
    rules: dict[str, RuleSettings] = msgspec.field(default_factory=dict)
    mcp: dict[str, McpSettings] = msgspec.field(default_factory=dict)
    directories: dict[str, DirectorySettings] = msgspec.field(default_factory=dict)
    credentials: dict[str, CredentialSettings] = msgspec.field(default_factory=dict)
    repositories: dict[str, RepositorySettings] = msgspec.field(default_factory=dict)
    runtime: RawTables = msgspec.field(default_factory=dict)
    store: RawTables = msgspec.field(default_factory=dict)
    bus: RawTables = msgspec.field(default_factory=dict)
    authenticator: RawTables = msgspec.field(default_factory=dict)
    telemetry: RawTables = msgspec.field(default_factory=dict)
    prices: RawTables = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `ValueError` for a name that cannot be part of a path, or that an agent has and is not there.

        Also for times that do not go together.
        """
        if self.journal.drain_timeout_s >= self.server.stop_timeout_s:
            raise ValueError("journal.drain_timeout_s must be less than server.stop_timeout_s")
        for kind, known in (("mcp", self.mcp), ("directories", self.directories), ("credentials", self.credentials)):
            for name in known:
                if not _NAME.fullmatch(name):
                    raise ValueError(f"{kind} has a table {name!r}: a name has letters, digits, - and _")
        for agent, override in self.agents.items():
            _check_known(f"[agents.{agent}] mcp_servers", override.mcp_servers or (), self.mcp)
            _check_known(f"[agents.{agent}] directories", override.directories or (), self.directories)
            _check_known(f"[agents.{agent}] credentials", override.credentials or (), self.credentials)


def _check_known(key: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key} names {name!r}; there is: {', '.join(sorted(known)) or 'none'}")
