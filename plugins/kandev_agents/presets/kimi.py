"""Kimi Code."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType

KIMI = AgentType(
    name="kimi",
    title="Kimi Code",
    description="Kimi Code CLI with a Moonshot key, or with any model that its configuration names",
    command=("kimi", "acp"),
    env={"KIMI_CODE_NO_AUTO_UPDATE": "1", "KIMI_DISABLE_TELEMETRY": "1"},
    env_optional=(
        "KIMI_MODEL_API_KEY", "KIMI_MODEL_BASE_URL", "KIMI_MODEL_NAME", "KIMI_MODEL_PROVIDER_TYPE",
    ),
    login_files=(".kimi-code/config.toml",),
    hosts=("api.kimi.com", "api.moonshot.ai"),
    network="allowlist",
    mode="default",
    asking_modes=("default",),
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @moonshot-ai/kimi-code",
)  # fmt: skip
