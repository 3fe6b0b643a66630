"""Agents that can be started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kandev_host.models import Limits

Dialect = Literal["acp", "seed-rpc", "lines", "auto"]
Network = Literal["none", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentType:
    """An agent that can be started: data only.

    `command` is what a user would type; the runtime finds it. `env` is set as given; `env_required` and
    `env_optional` name variables taken from the host's environment. `files` are written into the agent's private
    home before its first start (path relative to the home → content). `login_files` are paths under the user's home
    that hold a log-in; they enter the jail only where the settings name them. `hosts` are the network names it
    needs to work at all. `mode` is the ACP session mode (or config option of category mode) set on every session,
    so that no agent approves its own tools. `authenticate` is the ACP authMethod to call after initialize. The
    orchestrator's queue starts at most `max_agents` of it at once.
    """

    name: str
    command: tuple[str, ...]
    description: str = ""
    title: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    env_required: tuple[str, ...] = ()
    env_optional: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    login_files: tuple[str, ...] = ()
    share_login: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    network: Network = "none"
    allow: tuple[str, ...] = ()
    mode: str | None = None
    authenticate: str | None = None
    dialect: Dialect = "acp"
    nested_sandbox: bool = False
    runtime: str | None = None
    image: str | None = None
    capabilities: tuple[str, ...] = ()
    default_resources: Limits = Limits()
    max_agents: int | None = None
    install_hint: str | None = None
    enabled: bool = True
