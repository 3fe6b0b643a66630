"""Bounding what places take of the disk where no volume does: looked at while processes run there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Protocol

import anyio
import msgspec

from kandev_sandbox import Ending, SandboxError
from kandev_sandbox.beside import beside
from kandev_sandbox.disk import Space
from kandev_sandbox.endings import amount
from kandev_sandbox.processes import Identity

logger = logging.getLogger(__name__)
# Of one CPU, at most this share goes into looking.
_LOOKING_SHARE = 0.05
# How often in a row folders may be moved away under the count, which only those at the bottom of deep trees can be.
_BLIND = 3
Measure = Callable[[str, list[int]], Space]


class Watched(Protocol):
    """What runs in a place: a jail, a container."""

    @property
    def init(self) -> Identity | None:
        """The first of its processes, as the host sees it; None where they are not seen, as of a remote engine."""
        ...

    async def kill(self, because: Ending, /) -> None:
        """End all of it; its ending says why."""
        ...


class Quota(msgspec.Struct, frozen=True):
    """What a place may take."""

    bytes: int
    inodes: int


class _Place(msgspec.Struct):
    """A place in which something runs, and when to look at it again (loop time)."""

    quotas: dict[Watched, Quota] = msgspec.field(default_factory=dict)
    due_s: float = 0.0
    blind: int = 0

    @property
    def quota(self) -> Quota:
        """The least of those of all that runs there."""
        return Quota(min(q.bytes for q in self.quotas.values()), min(q.inodes for q in self.quotas.values()))


class DiskWatch:
    """Looks at each place while processes run in it, and ends them when it holds more than their quota.

    Between two looks a place may go beyond by what is written in that time. A place that was ended may be opened again
    to be cleaned up: then what is there may only become less, until it is within its quota.
    """

    def __init__(self, measure: Measure, interval_s: float, threads: anyio.CapacityLimiter) -> None:
        self._measure = measure
        self._threads = threads
        self._interval_s = interval_s
        self._places: dict[str, _Place] = {}
        # What was in a place that was ended; None until it is looked at again.
        self._beyond: dict[str, Quota | None] = {}

    @asynccontextmanager
    async def watching(self, workspace_id: str, process: Watched, quota: Quota) -> AsyncIterator[None]:
        """Hold the place to this quota until the context is left."""
        now_s = anyio.current_time()
        first_s = now_s if self._beyond.get(workspace_id, quota) is None else now_s + self._interval_s
        place = self._places.setdefault(workspace_id, _Place(due_s=first_s))
        place.quotas[process] = quota
        try:
            async with beside() as tasks:
                tasks.start_soon(self._watch, workspace_id, place)
                yield
        finally:
            del place.quotas[process]
            if not place.quotas:
                del self._places[workspace_id]

    async def _watch(self, workspace_id: str, place: _Place) -> None:
        """One for each process; whichever wakes first looks for all."""
        while True:
            await anyio.sleep_until(min(place.due_s, anyio.current_time() + self._interval_s))
            if place.due_s > anyio.current_time():
                continue
            started_s, place.due_s = anyio.current_time(), inf
            try:
                await self._look(workspace_id, place)
            finally:
                now_s = anyio.current_time()
                place.due_s = now_s + max(self._interval_s, (now_s - started_s) / _LOOKING_SHARE)

    async def _look(self, workspace_id: str, place: _Place) -> None:
        pids = [process.init.pid for process in place.quotas if process.init is not None]
        try:
            found = await anyio.to_thread.run_sync(self._measure, workspace_id, pids, limiter=self._threads)
        except (OSError, SandboxError) as error:
            logger.warning("the disk use of workspace %s was not measured: %s", workspace_id, error)
            return
        quota = place.quota
        within = found.bytes <= quota.bytes and found.inodes <= quota.inodes
        place.blind = place.blind + 1 if within and not found.complete else 0
        if within and place.blind < _BLIND:
            self._beyond.pop(workspace_id, None)
        elif found.cut or not self._becomes_less(workspace_id, _more(found, quota)):
            with anyio.CancelScope(shield=True):  # the end of one of them cancels whoever looks
                await _end(list(place.quotas), Ending("disk", _told(found, quota)))
                await self._mark(workspace_id, quota)

    async def _mark(self, workspace_id: str, quota: Quota) -> None:
        """What a place holds once all that grew it is gone: whoever opens it again may not go beyond that."""
        if self._beyond.setdefault(workspace_id, None) is not None:
            return
        with suppress(OSError, SandboxError):
            left = await anyio.to_thread.run_sync(self._measure, workspace_id, [], limiter=self._threads)
            self._beyond[workspace_id] = None if left.cut else _more(left, quota)

    def _becomes_less(self, workspace_id: str, now: Quota) -> bool:
        """Of a place that was ended before: is there no more than there was?"""
        if workspace_id not in self._beyond:
            return False
        before = self._beyond[workspace_id]
        less = before is None or (now.bytes <= before.bytes and now.inodes <= before.inodes)
        if less:
            self._beyond[workspace_id] = now
        return less


async def _end(processes: list[Watched], ending: Ending) -> None:
    """All of them. Each takes a few seconds at most."""
    async with anyio.create_task_group() as tasks:
        for process in processes:
            tasks.start_soon(process.kill, ending)


def _more(found: Space, quota: Quota) -> Quota:
    return Quota(max(found.bytes, quota.bytes), max(found.inodes, quota.inodes))


def _told(found: Space, quota: Quota) -> str:
    if found.bytes > quota.bytes:
        return f"its workspace holds {amount(found.bytes)}, above its disk limit of {amount(quota.bytes)}"
    if found.cut and found.inodes <= quota.inodes:
        return "its workspace holds more names of files than can be counted"
    if found.inodes <= quota.inodes:
        return "its workspace cannot be measured: folders far down in it are moved all the time"
    return f"its workspace holds more than the {quota.inodes} files of its limit"
