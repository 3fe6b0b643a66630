"""The agents that are driven: how the model makes each of them write a file, and in what it differs from the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kandev_agents.presets import PRESETS
from kandev_host import AgentType

TEXT = "hello from the model\n"
FILE = "made-by-model.txt"


@dataclass(frozen=True)
class Price:
    """Of a million tokens, in US dollars; `read` is of those that were not cached."""

    read: float
    cached: float
    written: float


@dataclass(frozen=True)
class Released:
    """How the model has this agent make a file, and in what the agent differs from the others.

    `write` is its tool, and the arguments that make it write `TEXT` to a file of this name. `allowing` is what in a
    repository would allow it to go unasked. A turn whose permission was rejected ends `rejected_ends`; a failure of the
    model is told as an error or, where `error_is_text`, as what the model said. The first that it shows of a tool call
    is `shows_a_call_by`. `opens` is how an earlier session may be opened again. Of a turn it tells the tokens in
    `counts` (fields of Usage), and the cost at `price`. `approving` are its modes in which something goes unasked.
    """

    name: str
    write: Callable[[str], tuple[str, dict[str, Any]]]
    allowing: Mapping[str, str]
    rejected_ends: str = "end_turn"
    error_is_text: bool = False
    shows_a_call_by: str = "tool_call"
    opens: frozenset[str] = frozenset({"resume"})
    counts: tuple[str, ...] = ("input_tokens", "output_tokens", "cached_read_tokens")
    price: Price | None = None
    approving: frozenset[str] = field(default_factory=frozenset)

    def steps(self, file: str = FILE, said: str = "MODEL-DONE") -> list[dict[str, Any]]:
        tool, arguments = self.write(file)
        return [{"call": tool, "args": arguments}, {"text": said}]

    @property
    def opens_after_a_kill(self) -> frozenset[str]:
        """It depends on what it had written down by then."""
        return self.opens | {"transcript"}

    @property
    def preset(self) -> AgentType:
        return named(self.name)


def _opencode(file: str) -> tuple[str, dict[str, Any]]:
    return "write", {"filePath": f"/workspace/{file}", "content": TEXT}


def _claude(file: str) -> tuple[str, dict[str, Any]]:
    return "Write", {"file_path": f"/workspace/{file}", "content": TEXT}


def _gemini(file: str) -> tuple[str, dict[str, Any]]:
    return "write_file", {"file_path": f"/workspace/{file}", "content": TEXT}


def _codex(file: str) -> tuple[str, dict[str, Any]]:
    why = {"sandbox_permissions": "require_escalated", "justification": "May I write the file?"}
    return "exec_command", {"cmd": f"printf '{TEXT.strip()}\\n' > {file}", **why}


_OPENCODE_ALLOWS = {"edit": "allow", "bash": "allow"}
_GEMINI_ALLOWS = {"tools": {"allowed": ["write_file"]}, "general": {"defaultApprovalMode": "auto_edit"}}
RELEASED = [
    Released(
        "opencode",
        _opencode,
        {
            "opencode.json": json.dumps(
                {"permission": _OPENCODE_ALLOWS, "agent": {"build": {"permission": _OPENCODE_ALLOWS}}}
            )
        },
        counts=(),  # it tells only those of the last call of the model
        price=Price(1, 0, 2),  # as `settings` sets it
    ),
    Released(
        "claude",
        _claude,
        {".claude/settings.json": json.dumps({"permissions": {"allow": ["Write", "Edit", "Bash"]}})},
        price=Price(5, 0.5, 25),
        approving=frozenset({"acceptEdits", "auto", "bypassPermissions", "dontAsk"}),
    ),
    Released(
        "gemini",
        _gemini,
        {".gemini/settings.json": json.dumps(_GEMINI_ALLOWS)},
        shows_a_call_by="tool_call_update",
        # It offers session/load. As a rule it then finds no session; where it was too slow to end in order, it does.
        opens=frozenset({"load", "transcript"}),
        counts=("input_tokens", "output_tokens"),
        approving=frozenset({"autoEdit", "yolo"}),
    ),
    Released(
        "codex",
        _codex,
        {".codex/config.toml": 'approval_policy = "never"\nsandbox_mode = "danger-full-access"\n'},
        rejected_ends="cancelled",
        error_is_text=True,
        approving=frozenset({"workspace-write", "agent", "agent-full-access"}),
    ),
]
each_agent = pytest.mark.parametrize("agent", RELEASED, ids=lambda agent: agent.name)


def named(name: str) -> AgentType:
    return next(preset for preset in PRESETS if preset.name == name)


def released(name: str) -> Released:
    return next(agent for agent in RELEASED if agent.name == name)


def settings(programs: Path, models: Any) -> str:
    """What a user would write to run the agents on a model server of this machine."""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"http://{models.address}/v1", "apiKey": "fake"},
        "models": {"m": {"name": "m", "limit": {"context": 200000, "output": 8000}, "cost": {"input": 1, "output": 2}}},
    }
    codex = f"""model = "m"
model_provider = "fake"
{named("codex").files[".codex/config.toml"]}
[model_providers.fake]
name = "Fake"
base_url = "http://{models.address}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"
"""
    opencode = {"model": "fake/m", "small_model": "fake/m", "provider": {"fake": provider}}
    return f"""
# Each of them starts slowly, and two of them at once on a busy machine more so.
[session]
initialize_timeout_s = 120.0
request_timeout_s = 120.0
cancel_grace_s = 60.0

[agents.opencode]
command = ["{programs}/opencode", "acp"]
allow = ["{models.address}"]
env = {{ OPENCODE_DISABLE_MODELS_FETCH = "1" }}

[agents.opencode.files]
".config/opencode/opencode.json" = '{json.dumps(opencode)}'

[agents.claude]
command = ["{programs}/claude-agent-acp"]
allow = ["{models.address}"]
env = {{ ANTHROPIC_BASE_URL = "http://{models.address}", ANTHROPIC_API_KEY = "fake" }}

[agents.gemini]
command = ["{programs}/gemini", "--acp"]
allow = ["{models.address}"]
env = {{ GOOGLE_GEMINI_BASE_URL = "http://{models.address}", GEMINI_API_KEY = "fake" }}

[agents.codex]
command = ["{programs}/codex-acp"]
network = "none"
allow = ["{models.address}"]
env = {{ FAKE_KEY = "fake" }}

[agents.codex.files]
".codex/config.toml" = '''
{codex}'''
"""
