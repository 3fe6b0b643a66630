"""From an agent type and a task to the process that is started."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import PurePosixPath

from msgspec.structs import asdict, replace

from kandev_host.errors import Unavailable, ValidationFailed
from kandev_host.interfaces import AgentType, LaunchExtras, Mount, ProcessSpec
from kandev_host.models import AgentInstance, Limits, Task
from kandev_host.services.credentials.files import login_source
from kandev_host.services.credentials.handed import NOTHING, Handed
from kandev_host.services.mcp import McpChoice
from kandev_host.services.network import reach_of

log = logging.getLogger(__name__)
NO_SERVERS = McpChoice()
PrepareLaunch = Callable[[AgentInstance, Task], LaunchExtras | Awaitable[LaunchExtras | None] | None]

_CPU = re.compile(r"^\d{1,4}(\.\d{1,3})?$")
_SIZE = re.compile(r"^\d{1,12}(?:[kmgtKMGT]?|\.\d{1,3}[kmgtKMGT])[bB]?$")


def merge_limits(base: Limits, wanted: Limits | None, field: str = "resources") -> Limits:
    """`wanted` over `base`, limit by limit. Raises `ValidationFailed` for one that is no amount."""
    if wanted is None:
        return base
    for name, pattern in (("cpu_limit", _CPU), ("memory_limit", _SIZE), ("disk_limit", _SIZE)):
        value = getattr(wanted, name)
        if value is not None and not pattern.match(value):
            example = "1.5" if name == "cpu_limit" else "2g"
            raise ValidationFailed(f"{field}.{name}", f'Give an amount such as "{example}"')
    return replace(base, **{key: value for key, value in asdict(wanted).items() if value is not None})


async def extras_of(prepare: Sequence[PrepareLaunch], agent: AgentInstance, task: Task) -> list[LaunchExtras]:
    """What plugins add to a launch; one that fails adds nothing, and the launch goes on."""
    extras = []
    for hook in prepare:
        try:
            answer = hook(agent, task)
            extra = await answer if isinstance(answer, Awaitable) else answer
        except Unavailable as error:
            log.warning("agent %s is launched without what a plugin adds: %s", agent.id, error)
            continue
        if extra is not None:
            extras.append(extra)
    return extras


def process_spec(
    agent_type: AgentType,
    agent: AgentInstance,
    task: Task,
    extras: Sequence[LaunchExtras] = (),
    *,
    read_only: bool = False,
    protected: Sequence[str] = (),
    mcp: McpChoice = NO_SERVERS,
    directories: Sequence[Mount] = (),
    handed: Handed = NOTHING,
) -> ProcessSpec:
    """What to start: only the named part of the host's environment and the named log-in files enter the jail, beside
    what its MCP servers need, the directories that it may see (of a run that may write nothing, read-only), and the
    credentials that it is `handed`."""
    own = {"KANDEV_AGENT_ID": agent.id, "KANDEV_TASK_ID": task.id}
    env = {**own, **_environment(agent_type, os.environ), **agent_type.env}
    for extra in extras:
        env.update(extra.env)
    return ProcessSpec(
        workspace_id=task.id,
        command=agent_type.command,
        env=handed.over(env),
        mounts=tuple(
            dict.fromkeys(  # two that are equal are one
                (
                    *login_mounts(agent_type.share_login),
                    *(mount for extra in extras for mount in extra.mounts),
                    *handed.mounts,
                    *(replace(mount, read_only=read_only or mount.read_only) for mount in directories),
                )
            )
        ),
        network=agent_type.network,
        allow=tuple(
            dict.fromkeys(
                (*agent_type.allow, *(name for extra in extras for name in extra.allow), *mcp.allow, *handed.allow)
            )
        ),
        passing=frozenset(handed.allow),
        limits=agent.resource_limits,
        nested_sandbox=agent_type.nested_sandbox,
        read_only=read_only,
        protected=tuple(protected),
        programs=mcp.programs,
        image=agent_type.image,
        adoptable=agent_type.dialect == "acp",
        labels={"agent_id": agent.id, "task_id": task.id, **reach_of(task.id)},
    )


def _environment(agent_type: AgentType, host: Mapping[str, str]) -> dict[str, str]:
    names = (*agent_type.env_required, *agent_type.env_optional)
    return {name: host[name] for name in names if host.get(name)}


def login_mounts(paths: Sequence[str]) -> list[Mount]:
    """Read-only mounts of the user's own log-in files, at the same place in the agent's home; absent ones are left out,
    and folders never enter.

    Read-only, because some agents keep there what they run: writing it would be running code as the user.
    """
    found = [(path, login_source(path)) for path in paths]
    return [
        Mount(os.path.realpath(source), f"~/{PurePosixPath(path.removeprefix('~/'))}")
        for path, source in found
        if source.is_file()
    ]
