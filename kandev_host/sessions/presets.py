"""The presets of permission: what is decided without asking. A ceiling, that policies of plugins can only lower.

A `kind` is the agent's own claim, so no preset is a wall: the jail is. `contained` and `unattended` are for agents in
a jail; `ask` is the default.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal

from kandev_host.interfaces import Decision
from kandev_host.models import PermissionRequest

Preset = Literal["ask", "read-only", "contained", "unattended"]

ASK = Decision("ask", "the default is to ask")
READS = frozenset({"read", "search", "think"})
OUTWARD = frozenset({"fetch", "switch_mode"})
WORKSPACE = PurePosixPath("/workspace")
PROTECTED = frozenset(
    {".git", ".mcp.json", ".envrc", ".vscode", ".idea", ".github", ".gitlab-ci.yml", ".claude", ".codex", ".gemini"}
    | {".cursor", ".opencode", "AGENTS.md", "CLAUDE.md", "GEMINI.md", "opencode.json"}
)


def preset_decision(preset: Preset, request: PermissionRequest) -> Decision:
    """What the preset alone says of a request."""
    kind = request.tool_call.get("kind")
    if preset == "unattended":
        return Decision("allow", "preset unattended")
    if preset == "contained":
        if kind in OUTWARD:
            return Decision("ask", f"preset contained asks for {kind}")
        if any(is_protected(path) for path in _paths(request.tool_call)):
            return Decision("ask", "preset contained asks for protected paths")
        return Decision("allow", "preset contained")
    if preset == "read-only":
        return ASK if kind in READS else Decision("deny", "preset read-only")
    return ASK


def is_protected(path: str) -> bool:
    """Outside the workspace, or a file that configures git, agents, editors or CI."""
    parts = PurePosixPath(path)
    inside = parts if parts.is_absolute() else WORKSPACE / parts
    if ".." in inside.parts or not inside.is_relative_to(WORKSPACE):
        return True
    return not PROTECTED.isdisjoint(inside.relative_to(WORKSPACE).parts)


def _paths(tool_call: dict[str, Any]) -> list[str]:
    """The paths that a call names: its locations and its diffs."""
    named = [*_list(tool_call.get("locations")), *_list(tool_call.get("content"))]
    found = (item.get("path") for item in named if isinstance(item, dict))
    return [path for path in found if isinstance(path, str)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def strictest(decisions: list[Decision]) -> Decision:
    """Deny beats ask beats allow; of equals, the first."""
    order = ("deny", "ask", "allow")
    return min(decisions, key=lambda decision: order.index(decision.effect))
