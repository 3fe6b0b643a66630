"""Gemini CLI, also under the name that other hosts gave it."""

from __future__ import annotations

from msgspec.structs import replace

from kandev_agents.presets.common import EDIT, RUN, as_json
from kandev_host import AgentType
from kandev_host.models import Limits

_GEMINI_SETTINGS = {
    # A folder that is not trusted cannot allow anything by its own .gemini/settings.json.
    "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": True}},
    "general": {"enableAutoUpdate": False, "checkForUpdates": False},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
}

GEMINI = AgentType(
    name="gemini",
    title="Gemini CLI",
    description="Gemini CLI with an API key",
    command=("gemini", "--acp"),
    env={"GEMINI_CLI_NO_RELAUNCH": "true"},
    env_required=("GEMINI_API_KEY",),
    env_optional=("GOOGLE_GEMINI_BASE_URL",),
    files={".gemini/settings.json": as_json(_GEMINI_SETTINGS)},
    hosts=("generativelanguage.googleapis.com",),
    network="allowlist",
    mode="default",
    asking_modes=("default", "plan"),
    image="kandev/gemini-agent",
    authenticate="gemini-api-key",
    capabilities=(EDIT, RUN),
    install_hint="npm install -g @google/gemini-cli",
)

GEMINI_AGENT = replace(
    GEMINI,
    name="gemini-agent",
    title="Gemini agent",
    description="Gemini CLI with an API key, for general development tasks",
    capabilities=(EDIT, RUN, "code_review", "documentation", "testing", "general_assistance"),
    default_resources=Limits(cpu_limit="1.5", memory_limit="1.5g", disk_limit="10g"),
)
