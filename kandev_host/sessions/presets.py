"""What the presets of permission are made of: their names, the kinds of calls, the paths that are always asked for.

A `kind` and a path are the agent's own claims, so no preset is a wall: the jail is. A claim only ever restricts.
"""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath
from typing import Any, Literal

Preset = Literal["ask", "read-only", "contained", "unattended"]

READS = frozenset({"read", "search", "think"})
WRITES = frozenset({"edit", "delete", "move"})
OUTWARD = frozenset({"execute", "fetch", "other"})
KINDS = READS | WRITES | OUTWARD | {"switch_mode"}
WORKSPACE = PurePosixPath("/workspace")
ROOTS = (WORKSPACE, PurePosixPath("/directories"))
# What configures git, agents, editors and CI, as their programs spell it.
PINNED = (
    *(".gitattributes", ".gitmodules", ".husky", ".pre-commit-config.yaml", ".envrc"),
    *(".mcp.json", ".claude", ".codex", ".gemini", ".cursor", ".cursorrules", ".opencode", ".qwen", ".vibe"),
    *(".augment", ".kiro", ".clinerules", ".windsurf", ".windsurfrules", "opencode.json"),
    *(".kilo", ".kilocode", "kilo.json", "kilo.jsonc", "opencode.jsonc", ".cline", ".copilot", ".deepagents"),
    *(".kimi-code", ".openhands", ".agents", "AGENTS.override.md", "CLAUDE.local.md"),
    *("AGENTS.md", "CLAUDE.md", "GEMINI.md", "QWEN.md", ".vscode", ".idea", ".zed", ".devcontainer"),
    *(".github", ".gitlab-ci.yml", ".circleci", ".travis.yml", "Jenkinsfile", "azure-pipelines.yml"),
)
PROTECTED = frozenset(name.casefold() for name in (".git", *PINNED))
# Where agents say in rawInput what they touch; each was seen in a released agent.
PATH_FIELDS = (
    *("path", "file_path", "filePath", "filepath", "abs_path", "absolute_path", "notebook_path", "target_file"),
    *("old_path", "new_path", "dir_path", "cwd", "workdir"),
)


def pinned(preset: Preset) -> tuple[str, ...]:
    """What the runtime makes read-only at the top of the workspace, where it is: what an agent claims is no wall.

    Only of `contained`, which allows edits by their claimed paths: under `ask` a person approves a change, and then it
    must be possible. `.git` is not among them: commits need it, and its hooks and configuration are always closed.
    """
    return PINNED if preset == "contained" else ()


def kind_of(call: dict[str, Any]) -> str:
    """The kind that the call claims; a missing or unknown one is `other`, as ACP has it."""
    kind = call.get("kind")
    return kind if isinstance(kind, str) and kind in KINDS else "other"


def is_protected(path: str) -> bool:
    """Outside the workspace (and the directories beside it), or what configures git, agents, editors or CI."""
    inside = WORKSPACE / path
    if "://" in path or path.startswith("~") or ".." in inside.parts:
        return True
    if not any(inside.is_relative_to(root) for root in ROOTS):
        return True
    return any(part.casefold() in PROTECTED for part in inside.parts)


def paths_of(call: dict[str, Any]) -> list[str]:
    """The paths that a call names: its locations, its diffs, and the fields of its input that agents use for paths."""
    named = [*_dicts(call.get("locations")), *_dicts(call.get("content"))]
    found = [item.get("path") for item in named]
    raw_input = call.get("rawInput")
    if isinstance(raw_input, dict):
        found += [raw_input.get(field) for field in PATH_FIELDS]
        changes = raw_input.get("changes")  # codex: path → change
        found += list(changes) if isinstance(changes, dict) else []
    return list(dict.fromkeys(path for path in found if isinstance(path, str) and path))


def in_workspace(path: str) -> str:
    """The path as rules spell it: relative to the workspace if it is in there, else absolute."""
    whole = posixpath.normpath(posixpath.join(str(WORKSPACE), path))
    return whole.removeprefix(f"{WORKSPACE}/")


def diffs_of(call: dict[str, Any]) -> list[dict[str, Any]]:
    """The diffs among the contents of a call."""
    return [item for item in _dicts(call.get("content")) if item.get("type") == "diff"]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
