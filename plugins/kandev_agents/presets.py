"""Released ACP agents as data: how each is started, told to ask first, and kept from updating itself.

What was seen of each release, and which ones were really driven: docs/agents.md. A preset sets what keeps an agent
asking where the workspace cannot undo it (a variable, the session's mode, or its file in the private home). Network
is the user's choice: every preset starts without one, and `hosts` says what it would have to reach.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kandev_host import AgentType

DEMO_FOLDER = str(Path(__file__).resolve().parent / "demo")
EDIT, RUN, RESUME = "edit", "execute", "resume"


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


DEMO = AgentType(
    name="demo",
    title="Demo",
    description="A scripted agent without a model: it looks, plans, asks, edits and reports; no key, no network",
    # -I and -S: neither the user's packages nor .pth files, which may point to folders that the jail does not show.
    command=(sys.executable, "-I", "-S", DEMO_FOLDER),
    env={"KANDEV_DEMO_PAUSE_S": "0.01"},
    mode="ask",
    capabilities=(EDIT, RUN, RESUME),
)

OPENCODE = AgentType(
    name="opencode",
    title="OpenCode",
    description="OpenCode, with any model provider it knows",
    command=("opencode", "acp"),
    env={
        # Merged over every opencode.json, so that one in the repository cannot allow what asks here.
        "OPENCODE_PERMISSION": json.dumps(
            {"edit": "ask", "bash": "ask", "webfetch": "ask", "external_directory": "ask"}
        ),
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
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g opencode-ai",
)

CLAUDE = AgentType(
    name="claude",
    title="Claude",
    description="Claude Code through its ACP adapter",
    command=("claude-agent-acp",),
    env={"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "NO_BROWSER": "1"},
    env_optional=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN"),
    # An ask rule beats any allow rule, so that .claude/settings.json of the repository cannot allow what asks here.
    files={
        ".claude/settings.json": _json(
            {"permissions": {"defaultMode": "default", "ask": ["Edit", "Write", "NotebookEdit", "Bash", "WebFetch"]}}
        )
    },
    login_files=(".claude/.credentials.json", ".claude.json"),
    hosts=("api.anthropic.com",),
    mode="default",
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @agentclientprotocol/claude-agent-acp",
)

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
    # Its default mode, `agent`, has a model review what it runs.
    mode="read-only",
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
    nested_sandbox=True,
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @zed-industries/codex-acp",
)

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
    files={".gemini/settings.json": _json(_GEMINI_SETTINGS)},
    hosts=("generativelanguage.googleapis.com",),
    mode="default",
    authenticate="gemini-api-key",
    capabilities=(EDIT, RUN),
    install_hint="npm install -g @google/gemini-cli",
)

_AUGGIE_ASKING = ("launch-process", "save-file", "str-replace-editor", "remove-files", "web-fetch")

AUGGIE = AgentType(
    name="auggie-cli",
    title="Auggie",
    description="Augment's agent; needs an Augment account",
    command=("auggie", "--acp"),
    env={"AUGMENT_DISABLE_AUTO_UPDATE": "1"},
    env_optional=("AUGMENT_SESSION_AUTH", "AUGMENT_API_TOKEN", "AUGMENT_API_URL"),
    files={
        ".augment/settings.json": _json(
            {"toolPermissions": [{"toolName": name, "permission": {"type": "ask-user"}} for name in _AUGGIE_ASKING]}
        )
    },
    login_files=(".augment/session.json",),
    hosts=("augmentcode.com",),
    mode="default",
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @augmentcode/auggie",
)

QWEN = AgentType(
    name="qwen",
    title="Qwen Code",
    description="Qwen Code with any OpenAI-compatible model",
    command=("qwen", "--acp"),
    env_required=("OPENAI_API_KEY",),
    env_optional=("OPENAI_BASE_URL", "OPENAI_MODEL"),
    files={
        ".qwen/settings.json": _json(
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
    # Its newer releases start in `auto`, where a model approves.
    mode="default",
    authenticate="openai",
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g @qwen-code/qwen-code",
)

VIBE = AgentType(
    name="vibe",
    title="Mistral Vibe",
    description="The coding agent of Mistral, with a Mistral key",
    command=("vibe-acp",),
    env_required=("MISTRAL_API_KEY",),
    files={".vibe/config.toml": "enable_telemetry = false\nenable_update_checks = false\n"},
    hosts=("api.mistral.ai",),
    # Its default, `accept-edits`, edits without asking.
    mode="ask",
    capabilities=(EDIT, RUN, RESUME),
    install_hint="uv tool install mistral-vibe, or: pipx install mistral-vibe",
)

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
    capabilities=(EDIT, RUN, RESUME),
    install_hint="uv tool install deepagents-code, or: pipx install deepagents-code",
)  # fmt: skip

PRESETS = (DEMO, OPENCODE, CLAUDE, CODEX, CODEX_ZED, GEMINI, AUGGIE, QWEN, VIBE, DEEPAGENTS)
