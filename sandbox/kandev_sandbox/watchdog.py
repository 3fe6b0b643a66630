"""What the kernel does not hold a jail to, the host watches: its time, and without cgroups its memory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Protocol

import anyio

from kandev_sandbox.beside import beside
from kandev_sandbox.endings import Ending, amount
from kandev_sandbox.memory_watch import WATCHER, Watch
from kandev_sandbox.policy import Limits
from kandev_sandbox.processes import Identity


class Watched(Protocol):
    """A jail."""

    init: Identity

    async def kill(self, because: Ending | None = None) -> None: ...


@asynccontextmanager
async def watching(
    jail: Watched, limits: Limits, held: frozenset[str], scratch: Sequence[str] = ()
) -> AsyncIterator[None]:
    """Until the context is left. `held` are the cgroup controllers that hold the jail, `scratch` its tmpfs."""
    memory = None if "memory" in held else limits.memory_bytes
    if memory is None and limits.wall_s is None:
        yield
        return
    with ExitStack() as stack:
        async with beside() as tasks:
            if limits.wall_s is not None:
                tasks.start_soon(_time, jail, limits.wall_s)
            if memory is not None:
                tasks.start_soon(_memory, jail, stack.enter_context(_watch(jail, memory, scratch)))
            yield


async def _time(jail: Watched, wall_s: float) -> None:
    await anyio.sleep(wall_s)
    await jail.kill(Ending("time", f"it was ended after its time limit of {wall_s:g} s"))


@contextmanager
def _watch(jail: Watched, limit_bytes: int, scratch: Sequence[str]) -> Iterator[Watch]:
    """Looked at from here on, until the context is left."""
    beyond = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        watch = Watch(jail.init, limit_bytes, beyond, scratch)
        WATCHER.add(watch)
        try:
            yield watch
        finally:
            WATCHER.remove(watch)
    finally:
        os.close(beyond)


async def _memory(jail: Watched, watch: Watch) -> None:
    await anyio.wait_readable(watch.beyond)
    limit, used = amount(watch.limit_bytes), amount(watch.used_bytes or 0)
    await jail.kill(Ending("memory", f"it was ended at its memory limit of {limit}: it used {used}"))
