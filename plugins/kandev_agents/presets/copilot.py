"""GitHub Copilot."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType

COPILOT = AgentType(
    name="copilot",
    title="GitHub Copilot",
    description="Copilot CLI with a GitHub account, or with any OpenAI-compatible or Anthropic model",
    command=("copilot", "--acp"),
    env={"COPILOT_AUTO_UPDATE": "false"},
    env_optional=(
        "COPILOT_GITHUB_TOKEN",
        "COPILOT_MODEL",
        "COPILOT_OFFLINE",
        "COPILOT_PROVIDER_API_KEY",
        "COPILOT_PROVIDER_BASE_URL",
        "COPILOT_PROVIDER_TYPE",
    ),
    hosts=("api.githubcopilot.com", "api.github.com", "github.com"),
    network="allowlist",
    # Its modes have addresses for ids. `autopilot` allows everything.
    mode="https://agentclientprotocol.com/protocol/session-modes#agent",
    asking_modes=("https://agentclientprotocol.com/protocol/session-modes#agent",),
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @github/copilot",
)
