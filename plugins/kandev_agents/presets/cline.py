"""Cline."""

from __future__ import annotations

from kandev_agents.presets.common import EDIT, RESUME, RUN
from kandev_host import AgentType

CLINE = AgentType(
    name="cline",
    title="Cline",
    description="Cline with a Cline account or its key",
    command=("cline", "--acp", "--auto-approve", "false"),
    env={"CLINE_NO_AUTO_UPDATE": "1"},
    env_optional=("CLINE_API_KEY",),
    login_files=(".cline/data/settings/providers.json",),
    hosts=("api.cline.bot",),
    network="allowlist",
    # Its modes are `act` and `plan`; it asks in both.
    mode="act",
    asking_modes=("act", "plan"),
    capabilities=(EDIT, RUN, RESUME),
    install_hint="npm install -g cline",
)
