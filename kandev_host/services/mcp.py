"""The MCP servers of the settings, and which of them an agent is given: those of its type and those of its task."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kandev_host.errors import Conflict
from kandev_host.interfaces import AgentType, Runtime
from kandev_host.models import Task
from kandev_host.protocol.acp import Json
from kandev_host.secrets import looks_secret
from kandev_host.services.named import check_names
from kandev_host.settings import McpSettings

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class McpChoice:
    """`servers` are as ACP has them, with their secrets: they go to the agent, and nowhere else.

    `programs` are what the agent starts of them, and `allow` the loopback services that it may reach for them.
    """

    servers: tuple[Json, ...] = field(default=(), repr=False)
    programs: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


class McpServers:
    def __init__(self, settings: Mapping[str, McpSettings]) -> None:
        self._settings = settings

    def check(self, names: Sequence[str]) -> tuple[str, ...]:
        """Raises `ValidationFailed` for a name that is not in the settings."""
        return check_names("mcp_servers", names, self._settings)

    def outward(self, agent_type: AgentType, task: Task) -> str | None:
        """What its servers are given that leads out of the jail: a secret of the host's, a service."""
        for name in (*agent_type.mcp_servers, *task.mcp_servers):
            settings = self._settings.get(name)
            if settings is not None and (settings.env_required or settings.headers):
                return f"the MCP server {name} has a secret"
            if settings is not None and settings.allow:
                return f"the MCP server {name} may reach {settings.allow[0]}"
        return None

    def secrets(self, agent_type: AgentType, task: Task) -> list[tuple[str, str, bool]]:
        """What its servers are given that is secret: server, variable or header, and whether it is there to be given.

        Raises `ValidationFailed` for a name that is gone.
        """
        found = []
        for name in self.check((*agent_type.mcp_servers, *task.mcp_servers)):
            settings = self._settings[name]
            required = settings.env_required or ()
            found += [(name, variable, bool(os.environ.get(variable))) for variable in required]
            found += [(name, f"header {header}", True) for header in settings.headers or ()]
            own = [variable for variable in settings.env or () if variable not in required and looks_secret(variable)]
            found += [(name, variable, True) for variable in own]
        return found

    async def of(self, agent_type: AgentType, task: Task, runtime: Runtime) -> McpChoice:
        """What an agent that starts now is given.

        Raises `ValidationFailed` for a name that is gone, and `Conflict` for a server that cannot be had here.
        """
        servers, programs = [], []
        allow: list[str] = []
        for name in self.check((*agent_type.mcp_servers, *task.mcp_servers)):
            settings = self._settings[name]
            variables = _variables(name, settings)
            if settings.command is None:
                servers.append(_http(name, settings, variables))
            else:
                program = await _located(name, settings.command[0], runtime, agent_type.image)
                programs.append(program)
                servers.append(_stdio(name, settings, program, variables))
            allow += settings.allow or ()
        return McpChoice(servers=tuple(servers), programs=tuple(programs), allow=tuple(dict.fromkeys(allow)))


def _variables(name: str, settings: McpSettings) -> dict[str, str]:
    """What it takes from the host's environment."""
    missing = [variable for variable in settings.env_required or () if not os.environ.get(variable)]
    if missing:
        raise Conflict(f"The MCP server {name!r} needs the variable {missing[0]}; set it for the host", state="unset")
    return {variable: os.environ[variable] for variable in settings.env_required or ()}


async def _located(name: str, command: str, runtime: Runtime, image: str | None) -> str:
    """The program's path inside, since ACP asks for an absolute one."""
    found = await runtime.locate(command, image)
    if not found.ok:
        raise Conflict(f"The MCP server {name!r} cannot be started: {found.reason} Fix: {found.fix}", state="missing")
    return str(found.details.get("path", command))


def _stdio(name: str, settings: McpSettings, program: str, variables: Mapping[str, str]) -> Json:
    """ACP: McpServerStdio."""
    arguments = list((settings.command or ())[1:])
    return {"name": name, "command": program, "args": arguments, "env": _pairs({**variables, **(settings.env or {})})}


def _http(name: str, settings: McpSettings, variables: Mapping[str, str]) -> Json:
    """ACP: McpServerHttp."""
    filled = {
        header: _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), value)
        for header, value in (settings.headers or {}).items()
    }
    return {"type": "http", "name": name, "url": settings.url, "headers": _pairs(filled)}


def _pairs(values: Mapping[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]
