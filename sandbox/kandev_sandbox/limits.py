"""Limits that the kernel holds each process of a jail to (setrlimit). Those of the whole tree: groups.py."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from functools import cache

from kandev_sandbox import libc
from kandev_sandbox.apart import apart
from kandev_sandbox.errors import JailUnavailable
from kandev_sandbox.policy import Limits

TOOLS = "/usr/bin:/bin:/usr/sbin:/sbin"


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


def apply(pid: int, limits: Mapping[int, int], uid: int | None) -> None:
    """Set them on a process that still waits to run its command. `uid` is the one that it was dropped to, if it was.

    Raises `ProcessLookupError` if it has ended.
    """
    try:
        _set(pid, limits)
    except PermissionError:
        # Root of a container often lacks CAP_SYS_RESOURCE; without, it takes the real ids of that process (prlimit(2)).
        if uid is None:
            raise
        apart(_set_as, uid, pid, limits)


def _set(pid: int, limits: Mapping[int, int]) -> None:
    for kind, value in limits.items():
        resource.prlimit(pid, kind, (value, value))


def _set_as(uid: int, pid: int, limits: Mapping[int, int]) -> None:
    libc.set_real_ids(uid)
    _set(pid, limits)


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
