"""Per-process limits of a jail. They hold for each process alone; without cgroups a tree is not bounded."""

from __future__ import annotations

import os
import resource
import shutil
from functools import cache
from pathlib import Path

from kandev_sandbox.errors import JailUnavailable
from kandev_sandbox.policy import Limits

TOOLS = "/usr/bin:/bin:/usr/sbin:/sbin"
_CAP_SYS_RESOURCE = 24


def wanted(limits: Limits, own_uid: bool) -> dict[int, int]:
    """Resource → value, never above this process's own hard limit, which nobody could raise."""
    values = {
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_MEMLOCK: limits.locked_bytes,
        resource.RLIMIT_NPROC: limits.processes if own_uid else None,
        resource.RLIMIT_SIGPENDING: limits.pending_signals,
        resource.RLIMIT_CORE: limits.core_bytes,
        resource.RLIMIT_RTPRIO: 0,
    }
    return {kind: _capped(kind, value) for kind, value in values.items() if value is not None}


def apply(pid: int, limits: dict[int, int]) -> None:
    """Set them on a process that still waits to run its command. Raises `ProcessLookupError` if it has ended."""
    for kind, value in limits.items():
        resource.prlimit(pid, kind, (value, value))


@cache
def from_outside() -> bool:
    """May this process set another's limits? As root of a container, often not (CAP_SYS_RESOURCE)."""
    if os.geteuid() != 0:
        return True
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line for line in lines if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)


def command_prefix(limits: dict[int, int]) -> list[str]:
    """prlimit(1) before the command: the way where `from_outside` is false. Raises `JailUnavailable`."""
    names = {
        resource.RLIMIT_NOFILE: "nofile",
        resource.RLIMIT_FSIZE: "fsize",
        resource.RLIMIT_MEMLOCK: "memlock",
        resource.RLIMIT_NPROC: "nproc",
        resource.RLIMIT_SIGPENDING: "sigpending",
        resource.RLIMIT_CORE: "core",
        resource.RLIMIT_RTPRIO: "rtprio",
    }
    return [tool("prlimit"), *(f"--{names[kind]}={value}:{value}" for kind, value in limits.items()), "--"]


@cache
def tool(name: str) -> str:
    """The path of a tool of util-linux, looked for until it is found. Raises `JailUnavailable`."""
    path = shutil.which(name, path=TOOLS)
    if path is None:
        raise JailUnavailable(f"{name} is not installed; as root the jail needs it.", "apt-get install util-linux")
    return path


def _capped(kind: int, value: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
