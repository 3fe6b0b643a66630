"""Claude Code."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN, as_json
from kandev_host import AgentType, UsageReading

CLAUDE = AgentType(
    name="claude",
    title="Claude",
    description="Claude Code through its ACP adapter",
    command=("claude-agent-acp",),
    env={"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "NO_BROWSER": "1"},
    env_optional=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN"),
    # An ask rule beats any allow rule, so that .claude/settings.json of the repository cannot allow what asks here.
    files={
        ".claude/settings.json": as_json(
            {"permissions": {"defaultMode": "default", "ask": ["Edit", "Write", "NotebookEdit", "Bash", "WebFetch"]}}
        )
    },
    login_files=(".claude/.credentials.json", ".claude.json"),
    hosts=("api.anthropic.com",),
    network="allowlist",
    mode="default",
    asking_modes=("default", "plan"),
    capabilities=(EDIT, RUN, RESUME),
    image="kandev/claude-agent",
    usage=UsageReading(cost_after_resume="restarts"),
    install_hint="npm install -g @agentclientprotocol/claude-agent-acp",
)
