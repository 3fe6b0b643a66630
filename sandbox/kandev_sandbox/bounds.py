"""What bounds one jail as a whole: its cgroups, as far as this process can make some, made and deleted with it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio

from kandev_sandbox import cgroups
from kandev_sandbox.cgroups import Cgroups
from kandev_sandbox.endings import Ending, told_by
from kandev_sandbox.errors import SpawnFailed
from kandev_sandbox.groups import Group
from kandev_sandbox.policy import Limits
from kandev_sandbox.processes import Usage, usage
from kandev_sandbox.records import Owner

_REMOVE_S = 2.0
_AGAIN_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """`prefixes` are how the paths of all groups of this owner begin, whatever this jail has."""

    limits: Limits
    group: Group
    prefixes: tuple[str, ...]

    @property
    def held(self) -> frozenset[str]:
        """The cgroup controllers that hold this jail."""
        return self.group.controllers

    @property
    def folders(self) -> tuple[Path, ...]:
        return self.group.folders

    async def join(self, pid: int) -> None:
        """Put the jail's first process in, and so all that it will start.

        Raises `ProcessLookupError` when it has ended, `SpawnFailed`.
        """
        if not self.group.parts:
            return
        try:
            # The first join after a quiet moment waits for the kernel, up to some 15 ms (measured).
            await anyio.to_thread.run_sync(self.group.join, pid)
        except ProcessLookupError:
            raise
        except OSError as error:
            raise SpawnFailed(f"The jail cannot be put into its cgroup: {error}.") from error

    def usage(self, pid: int) -> Usage:
        """By the cgroups' count where there is one, else by /proc. Blocks."""
        if not self.group.parts:
            return usage(pid)
        used = self.group.used()
        if used.cpu_s is not None and used.memory_bytes is not None:
            return Usage(used.cpu_s, used.memory_bytes, used.processes)
        seen = usage(pid)
        memory = seen.rss_bytes if used.memory_bytes is None else used.memory_bytes
        return Usage(seen.cpu_s if used.cpu_s is None else used.cpu_s, memory, used.processes)

    def met(self) -> Ending | None:
        """The limit that the kernel has counted hits of."""
        return told_by(self.group.hits(), self.limits)


async def bounded(stack: AsyncExitStack, limits: Limits, owner: Owner, jail_id: str, given: Cgroups | None) -> Bounds:
    """Make the groups that the limits need; they are deleted when the stack is left. Raises `SpawnFailed`."""
    if not cgroups.controllers_for(limits):
        return Bounds(limits, Group(()), ())
    try:
        found, group = await anyio.to_thread.run_sync(_made, limits, owner, jail_id, given)
    except OSError as error:
        raise SpawnFailed(f"The limits of the jail cannot be set: {error}.") from error
    stack.push_async_callback(_remove, found, group)
    return Bounds(limits, group, found.prefixes(owner))


def _made(limits: Limits, owner: Owner, jail_id: str, given: Cgroups | None) -> tuple[Cgroups, Group]:
    found = given or cgroups.here()
    try:
        return found, found.make(owner, jail_id, limits)
    except OSError:
        # Somebody moved this process, or deleted the group that it was in.
        found = given or cgroups.again()
        return found, found.make(owner, jail_id, limits)


async def _remove(found: Cgroups, group: Group) -> None:
    """Once nothing runs in it the kernel lets a group go, if not at once; what stays is swept at the next start."""
    with anyio.move_on_after(_REMOVE_S, shield=True):
        for pause_s in _AGAIN_S:
            if await anyio.to_thread.run_sync(found.remove, group):
                return
            await anyio.sleep(pause_s)
