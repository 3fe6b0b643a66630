"""Codex, through either of its two adapters."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType

_CODEX_CONFIG = "check_for_update_on_startup = false\n{approval}[analytics]\nenabled = false\n"

CODEX = AgentType(
    name="codex",
    title="Codex",
    description="Codex through its ACP adapter, from version 2; changes nothing before it is allowed to",
    command=("codex-acp",),
    env={"NO_BROWSER": "1"},
    env_optional=("OPENAI_API_KEY", "CODEX_API_KEY"),
    files={".codex/config.toml": _CODEX_CONFIG.format(approval='approval_policy = "on-request"\n')},
    login_files=(".codex/auth.json",),
    hosts=("api.openai.com", "chatgpt.com", "auth.openai.com"),
    network="allowlist",
    # Its default mode, `agent`, has a model review what it runs.
    mode="read-only",
    asking_modes=("read-only",),
    image="kandev/codex-agent",
    nested_sandbox=True,
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @agentclientprotocol/codex-acp",
)

CODEX_ZED = AgentType(
    name="codex-zed",
    title="Codex (Zed's adapter)",
    description="Codex through @zed-industries/codex-acp; its command has the same name as that of `codex`",
    command=("codex-acp",),
    env={"NO_BROWSER": "1"},
    env_optional=("OPENAI_API_KEY", "CODEX_API_KEY"),
    # `untrusted` asks before every command it does not know to be harmless; later adapters refuse the setting.
    files={
        ".codex/config.toml": _CODEX_CONFIG.format(
            approval='approval_policy = "untrusted"\nsandbox_mode = "workspace-write"\n'
        )
    },
    login_files=(".codex/auth.json",),
    hosts=("api.openai.com", "chatgpt.com", "auth.openai.com"),
    network="allowlist",
    nested_sandbox=True,
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @zed-industries/codex-acp",
)
