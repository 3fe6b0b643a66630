"""Qwen Code."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN, as_json
from kandev_host import AgentType

QWEN = AgentType(
    name="qwen",
    title="Qwen Code",
    description="Qwen Code with any OpenAI-compatible model",
    command=("qwen", "--acp"),
    env_required=("OPENAI_API_KEY",),
    env_optional=("OPENAI_BASE_URL", "OPENAI_MODEL"),
    files={
        ".qwen/settings.json": as_json(
            {
                "security": {"auth": {"selectedType": "openai"}},
                # As with Claude: an ask rule beats the allow rules of the repository, and its approvalMode.
                "permissions": {"ask": ["Edit", "WriteFile", "Bash", "WebFetch"]},
                "general": {"disableAutoUpdate": True, "disableUpdateNag": True, "enableAutoUpdate": False},
                "privacy": {"usageStatisticsEnabled": False},
                "telemetry": {"enabled": False},
            }
        )
    },
    hosts=("dashscope.aliyuncs.com",),
    network="allowlist",
    # Its newer releases start in `auto`, where a model approves.
    mode="default",
    asking_modes=("default", "plan"),
    authenticate="openai",
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @qwen-code/qwen-code",
)
