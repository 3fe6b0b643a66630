"""OpenCode."""

from __future__ import annotations

import json

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType, UsageReading

OPENCODE = AgentType(
    name="opencode",
    title="OpenCode",
    description="OpenCode, with any model provider it knows",
    command=("opencode", "acp"),
    env={
        # Merged over every opencode.json, but below the permissions that such a file gives to one of its agents
        # (`agent.build.permission`). So files of the repository are not read at all.
        "OPENCODE_PERMISSION": json.dumps(
            {"edit": "ask", "bash": "ask", "webfetch": "ask", "external_directory": "ask"}
        ),
        "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    },
    env_optional=(
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "OPENROUTER_API_KEY",
        "GEMINI_API_KEY",
        "OPENCODE_API_KEY",
        "OPENCODE_CONFIG_CONTENT",
        "OPENCODE_DISABLE_MODELS_FETCH",
    ),
    login_files=(".local/share/opencode/auth.json", ".config/opencode/opencode.json"),
    hosts=("opencode.ai", "models.dev", "api.anthropic.com", "api.openai.com", "openrouter.ai"),
    network="allowlist",
    # Its modes are its agents: those of a repository may have permissions of their own.
    asking_modes=("build", "plan"),
    capabilities=(EDIT, RUN, RESUME),
    image="kandev/opencode-agent",
    usage=UsageReading(tokens="last_call", cost_after_resume="continues"),
    install_hint="npm install -g opencode-ai",
)
