"""Agents that can be started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from kandev_host.models import Limits, UsageReading

Dialect = Literal["acp", "seed-rpc", "lines", "auto"]
Network = Literal["none", "allowlist", "host"]
Offered = Literal["files", "terminal"]


class AgentType(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that can be started: data only.

    `command` is what a user would type; the runtime finds it. `env` is set as given; `env_required` and `env_optional`
    name variables taken from the host's environment. `files` are written into the agent's private home before its first
    start (path relative to the home → content). `login_files` are paths under the user's home that hold a log-in; they
    enter the jail only where the settings name them. `hosts` are the network names it needs to work at all; with the
    network `allowlist` it reaches them and what `allow` names. `mode` is the ACP session mode (or config option of
    category mode) set on every session, so that no agent approves its own tools; `asking_modes` are those in which it
    asks (empty: not known), and it is kept in them unless it runs unattended. `options` are set on every session as
    well: a config option's id or category → its value. `authenticate` is the ACP authMethod to call after initialize.
    The orchestrator's queue starts at most `max_agents` of it at once. `mcp_servers`, `directories` and `credentials`
    name those of the settings that it always has. `usage` says how its reports of usage are read. `offers` is what
    the host serves to it of ACP's files and terminals, in a jail of the same workspace.
    """

    name: str
    command: tuple[str, ...]
    description: str = ""
    title: str | None = None
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    env_required: tuple[str, ...] = ()
    env_optional: tuple[str, ...] = ()
    files: Mapping[str, str] = msgspec.field(default_factory=dict)
    login_files: tuple[str, ...] = ()
    share_login: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    network: Network = "none"
    allow: tuple[str, ...] = ()
    mode: str | None = None
    asking_modes: tuple[str, ...] = ()
    options: Mapping[str, str | bool] = msgspec.field(default_factory=dict)
    authenticate: str | None = None
    dialect: Dialect = "acp"
    offers: tuple[Offered, ...] = ()
    nested_sandbox: bool = False
    runtime: str | None = None
    image: str | None = None
    capabilities: tuple[str, ...] = ()
    default_resources: Limits = Limits()
    max_agents: int | None = None
    usage: UsageReading = UsageReading()
    mcp_servers: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    install_hint: str | None = None
    enabled: bool = True
