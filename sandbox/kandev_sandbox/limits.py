"""Limits that the kernel holds each process of a jail to (setrlimit). Those of the whole tree: groups.py."""

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


def wanted(limits: Limits, own_uid: bool, held: frozenset[str] = frozenset()) -> dict[int, int]:
    """Resource → value, never above this process's own hard limit, which nobody could raise.

    `held` are the cgroup controllers that hold the tree. Without "memory" no process may have more data than the whole
    tree; without "pids" the kernel counts per uid.
    """
    values = {
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_MEMLOCK: limits.locked_bytes,
        resource.RLIMIT_NPROC: _processes(limits, own_uid, held),
        resource.RLIMIT_SIGPENDING: limits.pending_signals,
        resource.RLIMIT_CORE: limits.core_bytes,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_DATA: None if "memory" in held else limits.memory_bytes,
    }
    return {kind: _capped(kind, value) for kind, value in values.items() if value is not None}


def _processes(limits: Limits, own_uid: bool, held: frozenset[str]) -> int | None:
    """Where neither the uid nor the namespace is the jail's own, the processes of the user would count with its own."""
    if not (own_uid or counts_per_namespace()):
        return None
    given = [limits.processes, None if "pids" in held else limits.tree_processes]
    return min((value for value in given if value is not None), default=None)


@cache
def counts_per_namespace() -> bool:
    """Since Linux 5.14 a user namespace counts its own processes, and a jail has one: RLIMIT_NPROC bounds its tree."""
    numbers = os.uname().release.split(".")
    return (int(numbers[0]), int(numbers[1].partition("-")[0])) >= (5, 14)


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
        resource.RLIMIT_DATA: "data",
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
