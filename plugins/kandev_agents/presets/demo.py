"""The scripted agent that comes with the host."""

from __future__ import annotations

import sys
from pathlib import Path

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType

DEMO_FOLDER = str(Path(__file__).resolve().parents[1] / "demo")

DEMO = AgentType(
    name="demo",
    title="Demo",
    description="A scripted agent without a model: it looks, plans, asks, edits and reports; no key, no network",
    # -I and -S: neither the user's packages nor .pth files, which may point to folders that the jail does not show.
    command=(sys.executable, "-I", "-S", DEMO_FOLDER),
    env={"KANDEV_DEMO_PAUSE_S": "0.01"},
    mode="ask",
    asking_modes=("ask", "read-only"),
    capabilities=(EDIT, RUN, RESUME),
)
