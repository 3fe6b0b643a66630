"""Kilo Code."""

from __future__ import annotations

import json

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType

KILO = AgentType(
    name="kilo",
    title="Kilo Code",
    description="Kilo CLI, with any model provider it knows",
    command=("kilo", "acp"),
    env={
        # As with OpenCode, from which it descends: merged over every configuration file, but for its agents' own
        # permissions, so those of the repository are not read at all.
        "KILO_PERMISSION": json.dumps({"edit": "ask", "bash": "ask", "webfetch": "ask", "external_directory": "ask"}),
        "KILO_DISABLE_PROJECT_CONFIG": "1",
        "KILO_DISABLE_AUTOUPDATE": "1",
        "KILO_DISABLE_LSP_DOWNLOAD": "1",
    },
    env_optional=(
        "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "KILO_API_KEY", "KILO_DISABLE_MODELS_FETCH",
    ),
    login_files=(".local/share/kilo/auth.json", ".config/kilo/kilo.json"),
    hosts=("api.kilo.ai", "models.dev", "api.anthropic.com", "api.openai.com", "openrouter.ai"),
    network="allowlist",
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @kilocode/cli",
)  # fmt: skip
