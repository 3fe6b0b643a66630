"""What an agent may reach: that of its type, and that of its task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from kandev_host.errors import Forbidden
from kandev_host.interfaces import AgentType, Principal, Runtime
from kandev_host.models import Task

SCOPE = "tasks:allow"
REACH = "allow_of"
_SERVICE = re.compile(r"127\.0\.0\.1:[0-9]{1,5}")


class Places(Protocol):
    """Where processes run, by name."""

    def runtime(self, name: str) -> Runtime: ...


class Types(Protocol):
    @property
    def default_runtime(self) -> str: ...


def check_allow(principal: Principal, entries: Sequence[str], places: Places, types: Types) -> tuple[str, ...]:
    """Each of them once, in order. Raises `Forbidden` for anybody but a user: who is in a jail must not open it.

    Raises `ValidationFailed` for one that the default runtime cannot have.
    """
    if entries and principal.kind not in ("user", "host"):
        raise Forbidden(SCOPE)
    if entries:
        places.runtime(types.default_runtime).check_allow(entries)
    return tuple(dict.fromkeys(entries))


def reach_of(task_id: str) -> dict[str, str]:
    """The labels of a process that may reach what its task names: an agent, or a shell opened with an allowlist.

    By them alone is it found when the task names more: what clones, sets up or takes snapshots reaches only its own.
    """
    return {REACH: task_id}


def widen(task: Task, runtimes: Mapping[str, Runtime]) -> None:
    """What runs, or is on its way up, may reach what the task names now; what it named before, as long as it runs."""
    for runtime in runtimes.values():
        runtime.allow(reach_of(task.id), task.allow)


def leads_out(entry: str) -> bool:
    """Does it name something of the outside, beside the loopback services of the host?"""
    return _SERVICE.fullmatch(entry) is None


def reaching(agent_type: AgentType, task: Task) -> AgentType:
    """The agent type with what it may reach for this task.

    With an allowlist it has its own `hosts`. One without a network gets an allowlist when the task names anything of
    the outside, and in it what is named.
    """
    network, allow = agent_type.network, (*agent_type.allow, *task.allow)
    if network == "allowlist":
        allow = (*agent_type.hosts, *allow)
    elif network == "none" and any(map(leads_out, task.allow)):
        network = "allowlist"
    return replace(agent_type, network=network, allow=tuple(dict.fromkeys(allow)))
