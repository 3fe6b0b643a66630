"""What the runtimes of places have in common. Each is its places, and says itself how a process runs in one of them."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from kandev_host import NetworkDecision, Process, ProcessSpec, Result, errors
from kandev_places.decisions import Decisions, Gates, Unreached
from kandev_places.held import HeldPlaces
from kandev_places.limits import DiskBounds, quota_of
from kandev_places.places import Disk, Places
from kandev_places.watch import Watched
from kandev_sandbox import Owner, PolicyError, SandboxError, Uids, expand_allow
from kandev_sandbox.short import Piped, run_to_end


class PlaceSettings(DiskBounds, Protocol):
    """The settings of a runtime that say whose its places are, and what they may take."""

    @property
    def uid_first(self) -> int: ...
    @property
    def uid_count(self) -> int: ...
    @property
    def disk(self) -> Disk: ...
    @property
    def disk_watch_interval_s(self) -> float: ...


class Short(Piped, Protocol):
    """What `run` runs."""

    @property
    def ending(self) -> str | None: ...


class PlacesRuntime(HeldPlaces, ABC):
    """A `Runtime` but for what differs: probing, starting, and the processes of dead hosts."""

    @abstractmethod
    def spawn(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Process]: ...

    def _short(self, spec: ProcessSpec, unreached: Unreached) -> AbstractAsyncContextManager[Short]:
        """What `run` starts; a proxy of it tells `unreached`."""
        return self.spawn(spec)

    async def run(
        self, spec: ProcessSpec, *, stdin: bytes = b"", timeout_s: float = 60.0, max_output_bytes: int = 8 << 20
    ) -> Result:
        unreached = Unreached()
        async with self._short(spec, unreached) as process:
            try:
                outcome = await run_to_end(process, stdin, timeout_s, max_output_bytes)
            except TimeoutError as error:
                raise errors.TimedOut(f"{spec.command[0]} took longer than {timeout_s:g} s") from error
            ending = process.ending
        return Result(**asdict(outcome), ending=ending, unreached=unreached.words)

    async def adopt(self, ref: str, position: int) -> Process | None:
        """Never: what runs here dies with its host, or loses its pipes."""
        return None


class ConfinedRuntime(PlacesRuntime):
    """One that holds its processes. As root each place has a uid of its own; proxies let through what is allowed."""

    confines = True

    def __init__(self, settings: PlaceSettings, data_dir: Path, folder: str) -> None:
        """The places are in this folder of the data folder."""
        uids = Uids(data_dir / "uids", settings.uid_first, settings.uid_count) if os.geteuid() == 0 else None
        places = Places(data_dir / folder, uids, quota_of(settings, None), settings.disk)
        super().__init__(places, settings.disk_watch_interval_s)
        self._bounds: DiskBounds | None = settings if settings.disk != "none" else None
        self._owner = Owner.here(hashlib.sha256(str(data_dir).encode()).hexdigest()[:16])
        self._decisions = Decisions()
        self._gates = Gates()

    def _watched(
        self, process: Watched, workspace_id: str, disk_limit: str | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Within it the place is held to the disk's limit, by the end of the process."""
        if self._bounds is None:
            return nullcontext()
        return self.watching(workspace_id, process, quota_of(self._bounds, disk_limit))

    def decisions(self) -> AsyncIterator[NetworkDecision]:
        return self._decisions.read()

    def check_allow(self, entries: Sequence[str]) -> None:
        try:
            expand_allow(entries)
        except PolicyError as error:
            raise errors.ValidationFailed("allow", str(error)) from error

    def allow(self, labels: Mapping[str, str], entries: Sequence[str]) -> None:
        self._gates.allow(labels, entries)


def refused(error: SandboxError) -> errors.Unavailable:
    """What keeps a process from being started, for the host: a wrong policy is no better the next time."""
    kind = errors.Misconfigured if isinstance(error, PolicyError) else errors.Unavailable
    return kind(error.reason, fix=error.fix)
