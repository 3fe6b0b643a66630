"""Deep Agents Code."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType

DEEPAGENTS = AgentType(
    name="deepagents",
    title="Deep Agents",
    description="LangChain's Deep Agents Code, with any model provider it knows",
    command=("dcode", "--acp"),
    env={"DEEPAGENTS_CODE_NO_UPDATE_CHECK": "1", "DEEPAGENTS_CODE_AUTO_UPDATE": "0"},
    env_optional=(
        "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL",
    ),
    hosts=("api.openai.com", "api.anthropic.com"),
    network="allowlist",
    capabilities=(EDIT, RUN, RESUME),
    install_hint="uv tool install deepagents-code, or: pipx install deepagents-code",
)  # fmt: skip
