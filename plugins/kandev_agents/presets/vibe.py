"""Mistral Vibe."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType, UsageReading

VIBE = AgentType(
    name="vibe",
    title="Mistral Vibe",
    description="The coding agent of Mistral, with a Mistral key",
    command=("vibe-acp",),
    env_required=("MISTRAL_API_KEY",),
    files={".vibe/config.toml": "enable_telemetry = false\nenable_update_checks = false\n"},
    hosts=("api.mistral.ai",),
    network="allowlist",
    # Its default, `accept-edits`, edits without asking.
    mode="ask",
    asking_modes=("ask",),
    capabilities=(EDIT, RUN, RESUME),
    usage=UsageReading(tokens="cumulative", cost_after_resume="continues"),
    install_hint="uv tool install mistral-vibe, or: pipx install mistral-vibe",
)
