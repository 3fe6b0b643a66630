import sys
from pathlib import Path

from kandev_host import AgentType, hookimpl


@hookimpl
def kandev_agent_types() -> AgentType:
    return AgentType(
        name="hello",
        description="Says hello and leaves a file",
        command=(str(Path(sys.executable).with_name("hello-agent")),),
        capabilities=("edit",),
    )
