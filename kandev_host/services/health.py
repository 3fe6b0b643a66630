"""How the host is. It is looked at in the background, so that whoever asks is answered from memory."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import anyio
import anyio.to_thread
import msgspec

from kandev_host.errors import KandevError
from kandev_host.interfaces import Availability, Runtime
from kandev_host.services.watched import Writes

log = logging.getLogger(__name__)

LOOK_S = 10.0
LOOK_TIMEOUT_S = 5.0
# A database that somebody else holds is told as BUSY after 5 s: that, too, is an answer.
ANSWER_TIMEOUT_S = 9.0
PROBE_S = 60.0
FIRST_PROBE_S = 3.0
PROBE_TIMEOUT_S = 25.0  # bwrap gives up after 20 s by itself, and says why
FAILURE_KEPT_S = 60.0
# Of a small disk so much is enough.
LOW_SHARE = 20

Status = Literal["ok", "degraded"]


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a part of the host, and what to do about it."""

    part: str
    message: str
    fix: str | None = None


class Disk(msgspec.Struct, frozen=True):
    """The file system of the data folder; below `low_bytes` of free room the host is not well."""

    path: str
    size_bytes: int
    free_bytes: int
    low_bytes: int


class Writing(Protocol):
    """The journal."""

    async def record(self) -> object: ...


class Health:
    """Entering it begins to look. `others` are the problems that other parts know of themselves.

    A runtime counts when it is `needed` (by the settings), or was well before.
    """

    def __init__(
        self,
        journal: Writing,
        runtimes: Mapping[str, Runtime],
        *,
        writes: Writes,
        needed: Collection[str],
        folder: Path | None,
        low_bytes: Callable[[], int],
        others: Callable[[], Iterable[Problem]] = tuple,
    ) -> None:
        self.disk: Disk | None = None
        self.answers: bool | None = None
        self.writes = writes
        self._journal = journal
        self._runtimes = runtimes
        self._probed: dict[str, Availability] = {}
        self._needed = set(needed)
        self._folder = folder
        self._low_bytes = low_bytes
        self._others = others

    async def __aenter__(self) -> Health:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._look, name="health")
        self._group.start_soon(self._probe, name="runtimes' health")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    @property
    def status(self) -> Status:
        return "degraded" if self.problems() else "ok"

    def problems(self) -> list[Problem]:
        """All that is wrong, as last looked at; nothing is waited for."""
        return [*self._of_store(), *self._of_disk(), *self._of_runtimes(), *self._others()]

    async def pulse(self, timeout_s: float = ANSWER_TIMEOUT_S) -> bool:
        """Do event loop, journal and the store's writer answer? A refusal is an answer."""
        with anyio.move_on_after(timeout_s) as waiting:
            try:
                await self._journal.record()
            except KandevError as error:
                log.debug("The store answered the look at it with: %s", error)
        self.answers = not waiting.cancelled_caught
        return self.answers

    async def probe(self) -> dict[str, Availability]:
        """Every runtime, asked anew, all at once. One that does not answer in time cannot be used."""
        async with anyio.create_task_group() as group:
            for name, runtime in self._runtimes.items():
                group.start_soon(self._probe_one, name, runtime)
        return {name: self._probed[name] for name in self._runtimes}

    async def _probe_one(self, name: str, runtime: Runtime) -> None:
        found = Availability(
            False, f"The runtime {name!r} does not answer within {PROBE_TIMEOUT_S:g} s", "kandev-host doctor"
        )
        with anyio.move_on_after(PROBE_TIMEOUT_S):
            try:
                found = await runtime.probe()
            except (KandevError, OSError) as error:
                found = Availability(False, str(error), "kandev-host doctor")
        before = self._probed.get(name)
        self._probed[name] = found
        if found.ok:
            self._needed.add(name)
            if before is not None and not before.ok:
                log.info("The runtime %s is back", name)
        elif name in self._needed and (before is None or before.ok):
            log.info("The runtime %s is unavailable: %s", name, found.reason)

    async def _probe(self) -> None:
        await anyio.sleep(FIRST_PROBE_S)
        while True:
            try:
                await self.probe()
            except Exception:  # a plugin's own fault, of any kind: the look goes on
                log.exception("The runtimes could not be looked at")
            await anyio.sleep(PROBE_S)

    async def _look(self) -> None:
        while True:
            try:
                await self._look_at_disk()
                await self.pulse()
            except Exception:
                log.exception("The health of the host could not be looked at")
            await anyio.sleep(LOOK_S)

    async def _look_at_disk(self) -> None:
        if self._folder is None:
            return
        found: os.statvfs_result | None = None
        with anyio.move_on_after(LOOK_TIMEOUT_S):
            try:
                found = await anyio.to_thread.run_sync(os.statvfs, self._folder, abandon_on_cancel=True)
            except OSError as error:
                log.warning("The disk of %s could not be looked at: %s", self._folder, error.strerror)
        if found is not None:
            size = found.f_blocks * found.f_frsize
            low = min(self._low_bytes(), size // LOW_SHARE)
            self.disk = Disk(str(self._folder), size, found.f_bavail * found.f_frsize, low)

    def _of_store(self) -> Iterable[Problem]:
        writes = self.writes
        if self.answers is False:
            yield Problem("store", "The store does not answer", "look at its disk and at the log: kandev-host logs")
        elif writes.failed is not None and time.monotonic() - writes.failed_s < FAILURE_KEPT_S:
            yield Problem("store", f"Writes fail: {writes.failed}", "kandev-host doctor says more")

    def _of_disk(self) -> Iterable[Problem]:
        disk = self.disk
        if disk is not None and disk.free_bytes < disk.low_bytes:
            yield Problem(
                "disk",
                f"{disk.free_bytes >> 20} MiB are free at {disk.path}, less than {disk.low_bytes >> 20}",
                "make room: kandev-host workspace delete TASK, or [workspace] quota_bytes",
            )

    def _of_runtimes(self) -> Iterable[Problem]:
        for name, found in self._probed.items():
            if not found.ok and name in self._needed:
                yield Problem("runtime", f"The runtime {name} cannot be used: {found.reason}", found.fix)
