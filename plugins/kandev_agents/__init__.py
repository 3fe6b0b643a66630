"""The agents that come with kandev-host: presets of released ones, and `demo`."""

from __future__ import annotations

from kandev_agents.presets import DEMO_FOLDER, PRESETS
from kandev_host import AgentType, LaunchExtras, Mount, hookimpl
from kandev_host.models import AgentInstance, Task


@hookimpl
def kandev_agent_types() -> list[AgentType]:
    return list(PRESETS)


@hookimpl
def kandev_prepare_launch(agent: AgentInstance, task: Task) -> LaunchExtras | None:
    # The demo's code may lie outside the tree of the Python that runs it (an editable install), where no jail sees it.
    if agent.agent_type != "demo":
        return None
    return LaunchExtras(mounts=(Mount(DEMO_FOLDER, DEMO_FOLDER),))
