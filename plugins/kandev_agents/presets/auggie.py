"""Auggie."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN, as_json
from kandev_host import AgentType
from kandev_host.models import Limits

_AUGGIE_ASKING = ("launch-process", "save-file", "str-replace-editor", "remove-files", "web-fetch")

AUGGIE = AgentType(
    name="auggie-cli",
    title="Auggie",
    description="Augment's agent; needs an Augment account",
    command=("auggie", "--acp"),
    env={"AUGMENT_DISABLE_AUTO_UPDATE": "1"},
    env_optional=("AUGMENT_SESSION_AUTH", "AUGMENT_API_TOKEN", "AUGMENT_API_URL"),
    files={
        ".augment/settings.json": as_json(
            {"toolPermissions": [{"toolName": name, "permission": {"type": "ask-user"}} for name in _AUGGIE_ASKING]}
        )
    },
    login_files=(".augment/session.json",),
    hosts=("augmentcode.com",),
    network="allowlist",
    mode="default",
    asking_modes=("default", "ask"),
    image="augmentcode/auggie-cli",
    capabilities=(EDIT, RUN, RESUME, "code_analysis", "code_generation", "debugging", "refactoring"),
    default_resources=Limits(cpu_limit="2.0", memory_limit="2g", disk_limit="10g"),
    install_hint="npm install -g @augmentcode/auggie",
)
