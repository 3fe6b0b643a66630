"""What an agent is told to have when its session is opened: as far as it can take it.

ACP: the `mcpServers` and `additionalDirectories` of session/new, session/load and session/resume. Every agent takes
MCP servers that it starts itself; those over HTTP, and directories, are sent to agents that advertise them.
"""

from __future__ import annotations

from typing import Any

from kandev_host.protocol.acp import InitializeResult, Json
from kandev_host.sessions.stage import Equipment


def opening_fields(equipment: Equipment, initialized: InitializeResult | None) -> Json:
    """The fields for whatever call opens the session."""
    takes_http = _takes_http(initialized)
    servers = [server for server in equipment.mcp_servers if takes_http or not _is_http(server)]
    fields: Json = {"mcpServers": servers}
    if equipment.directories and _takes_directories(initialized):
        fields["additionalDirectories"] = list(equipment.directories)
    return fields


def left_out(equipment: Equipment, initialized: InitializeResult | None) -> list[str]:
    """What to tell people of MCP servers that this agent cannot be given."""
    if _takes_http(initialized):
        return []
    told = "The agent asks no MCP server over HTTP, so it works without {name!r}"
    return [told.format(name=server["name"]) for server in equipment.mcp_servers if _is_http(server)]


def _is_http(server: Json) -> bool:
    return server.get("type") == "http"


def _takes_http(initialized: InitializeResult | None) -> bool:
    return _capability(initialized, "mcpCapabilities", "http") is True


def _takes_directories(initialized: InitializeResult | None) -> bool:
    return _capability(initialized, "sessionCapabilities", "additionalDirectories") is not None


def _capability(initialized: InitializeResult | None, group: str, name: str) -> Any:
    """As the agent sent it; None if it did not."""
    capabilities = (initialized.agent_capabilities if initialized is not None else None) or {}
    found = capabilities.get(group)
    return found.get(name) if isinstance(found, dict) else None
