"""OpenHands."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType

OPENHANDS = AgentType(
    name="openhands",
    title="OpenHands",
    description="OpenHands CLI with the model of its own settings, which LLM_MODEL and LLM_API_KEY override",
    command=("openhands", "acp", "--override-with-envs"),
    env={"OPENHANDS_SUPPRESS_BANNER": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    env_optional=("LLM_API_KEY", "LLM_BASE_URL", "LLM_MODEL"),
    login_files=(".openhands/agent_settings.json",),
    hosts=("api.openai.com", "api.anthropic.com", "app.all-hands.dev"),
    network="allowlist",
    # The others are `always-approve` and `llm-approve`, in which a model approves.
    mode="always-ask",
    asking_modes=("always-ask",),
    capabilities=(EDIT, RUN, RESUME),
    install_hint="uv tool install openhands, or: pipx install openhands",
)
