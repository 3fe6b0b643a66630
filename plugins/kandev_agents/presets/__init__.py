"""Released ACP agents as data: how each is started, told to ask first, and kept from updating itself.

What was seen of each release, and which ones were really driven: docs/agents.md. A preset sets what keeps an agent
asking where the workspace cannot undo it (a variable, the session's mode, or its file in the private home). Each
reaches its `hosts`, which it needs to work at all, through the proxy of an allowlist, and nothing else.
"""

from __future__ import annotations

from kandev_agents.presets.auggie import AUGGIE
from kandev_agents.presets.claude import CLAUDE
from kandev_agents.presets.cline import CLINE
from kandev_agents.presets.codex import CODEX, CODEX_ZED
from kandev_agents.presets.copilot import COPILOT
from kandev_agents.presets.deepagents import DEEPAGENTS
from kandev_agents.presets.demo import DEMO, DEMO_FOLDER
from kandev_agents.presets.gemini import GEMINI, GEMINI_AGENT
from kandev_agents.presets.kilo import KILO
from kandev_agents.presets.kimi import KIMI
from kandev_agents.presets.opencode import OPENCODE
from kandev_agents.presets.openhands import OPENHANDS
from kandev_agents.presets.qwen import QWEN
from kandev_agents.presets.vibe import VIBE

PRESETS = (
    DEMO, OPENCODE, CLAUDE, CODEX, CODEX_ZED, GEMINI, GEMINI_AGENT, AUGGIE, QWEN, VIBE, DEEPAGENTS,
    COPILOT, CLINE, KIMI, KILO, OPENHANDS,
)  # fmt: skip

__all__ = ["DEMO", "DEMO_FOLDER", "PRESETS"]
