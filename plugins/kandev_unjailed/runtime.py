"""The runtime without a jail. Paths inside are mapped, not bound: /workspace is a folder of the data folder."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio

from kandev_host import (
    Availability,
    NetworkDecision,
    Owned,
    ProcessSpec,
    Shell,
    Terminal,
    errors,
)
from kandev_places.places import Place, Places
from kandev_places.runtimes import PlacesRuntime
from kandev_sandbox import HOME, WORKSPACE, guardian, records
from kandev_unjailed import HostSettings
from kandev_unjailed.process import PlainProcess, start

logger = logging.getLogger(__name__)

_REFUSED = "The runtime host has no jail: agents would have all of this user's files, network and log-ins."
_FIX = "use the runtime bwrap, or set [runtime.host] i_understand_there_is_no_jail = true"


class HostRuntime(PlacesRuntime):
    """Plain processes of this user. `network`, `allow`, `mounts` and `limits` of a spec have no effect here."""

    name = "host"
    confines = False

    def __init__(self, settings: HostSettings, data_dir: Path) -> None:
        self._allowed = settings.i_understand_there_is_no_jail
        super().__init__(Places(data_dir / "unjailed", None, disk="none"))
        self._owner = records.Owner.here(hashlib.sha256(f"host:{data_dir}".encode()).hexdigest()[:16])
        self._labels: dict[str, dict[str, str]] = {}

    async def sweep(self) -> None:
        """End the processes of dead hosts with this data folder."""
        await anyio.to_thread.run_sync(records.sweep, self._owner.name)

    async def probe(self) -> Availability:
        if not self._allowed:
            return Availability(False, _REFUSED, _FIX)
        return Availability(True, details={"jail": "none", "limits": "none"})

    async def locate(self, command: str, image: str | None = None) -> Availability:
        found = shutil.which(command)
        if found is None:
            return _missing(command)
        return Availability(True, details={"path": found})

    @asynccontextmanager
    async def spawn(self, spec: ProcessSpec) -> AsyncIterator[PlainProcess]:
        if not self._allowed:
            raise errors.Unavailable(_REFUSED, fix=_FIX)
        if spec.snapshots:
            raise errors.Unavailable("Without a jail there are no snapshots.", fix="use the runtime bwrap")
        if spec.read_only:
            raise errors.Unavailable("Without a jail the workspace cannot be read-only.", fix="use the runtime bwrap")
        async with self.held(spec.workspace_id) as place:
            process = self._start(spec, place)
            self._labels[process.ref] = dict(spec.labels)
            try:
                yield process
            finally:
                await process.kill()
                process.close()
                del self._labels[process.ref]

    def _start(self, spec: ProcessSpec, place: Place) -> PlainProcess:
        guardian.ensure(self._owner)
        logger.warning("NO JAIL: %s runs with all rights of this user", spec.command[0])
        try:
            command = (_outside(spec.command[0], place), *spec.command[1:])
            return start(command, _outside(spec.cwd, place), _env(spec, place), self._owner)
        except OSError as error:
            reason = f"{spec.command[0]} cannot be started: {error.strerror}"
            raise errors.Unavailable(reason, fix=f"install {spec.command[0]}, or name its path") from error

    def open_shell(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Shell]:
        raise errors.Unavailable("Without a jail there are no shells.", fix="use the runtime bwrap")

    def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> AbstractAsyncContextManager[Terminal]:
        raise errors.Unavailable("Without a jail there are no terminals.", fix="use the runtime bwrap")

    async def decisions(self) -> AsyncIterator[NetworkDecision]:
        """None: nothing is held back here."""
        nothing: tuple[NetworkDecision, ...] = ()
        for decision in nothing:
            yield decision

    def check_allow(self, entries: Sequence[str]) -> None:
        """Nothing is kept from these processes, whatever is allowed."""

    def allow(self, labels: Mapping[str, str], entries: Sequence[str]) -> None:
        """Nothing is kept from them."""

    async def list_owned(self) -> list[Owned]:
        """Those of a dead host have no labels: a plain process has no record but its mark."""
        found = await anyio.to_thread.run_sync(records.jails, self._owner.name)
        return [Owned(process.id, self._labels.get(process.id, {}), True) for process in found]

    async def reap(self, ref: str) -> bool:
        for process in await anyio.to_thread.run_sync(records.leftovers, self._owner.name):
            if process.id == ref:
                return await anyio.to_thread.run_sync(records.end, process)
        return False


def _missing(command: str) -> Availability:
    if os.sep in command and os.path.isfile(command):
        fix = f"chmod +x {shlex.quote(os.path.abspath(command))}"
        return Availability(False, f"{command} is no executable file.", fix, {"found": True})
    return Availability(False, f"{command} is not on the PATH.", f"install {command}, or name its path")


def _outside(path: str, place: Place) -> str:
    """What a path inside is without a jail."""
    for inside, folder in ((WORKSPACE, place.workspace), (HOME, place.home)):
        if path == inside or path.startswith(inside + "/"):
            return str(folder) + path[len(inside) :]
    return path


def _env(spec: ProcessSpec, place: Place) -> dict[str, str]:
    return {
        "HOME": str(place.home),
        "TMPDIR": str(place.tmp),
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        **spec.env,
    }
