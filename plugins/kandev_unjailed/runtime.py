"""The runtime without a jail. Paths inside are mapped, not bound: /workspace is a folder of the data folder."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio

from kandev_host import Availability, Owned, Process, ProcessSpec, Result, errors
from kandev_sandbox import HOME, WORKSPACE, guardian, records
from kandev_sandbox.short import run_to_end
from kandev_unjailed import HostSettings
from kandev_unjailed.process import PlainProcess, start

logger = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_REFUSED = "The runtime host has no jail: agents would have all of this user's files, network and log-ins."
_FIX = "use the runtime bwrap, or set [runtime.host] i_understand_there_is_no_jail = true"


class HostRuntime:
    """Plain processes of this user. `network`, `allow`, `mounts` and `limits` of a spec have no effect here."""

    name = "host"

    def __init__(self, settings: HostSettings, data_dir: Path) -> None:
        self._allowed = settings.i_understand_there_is_no_jail
        self._folder = data_dir / "unjailed"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owner = records.Owner.here(hashlib.sha256(f"host:{data_dir}".encode()).hexdigest()[:16])
        self._labels: dict[str, dict[str, str]] = {}

    async def sweep(self) -> None:
        """End the processes of dead hosts with this data folder."""
        await anyio.to_thread.run_sync(records.sweep, self._owner.name)

    async def probe(self) -> Availability:
        if not self._allowed:
            return Availability(False, _REFUSED, _FIX)
        return Availability(True, details={"jail": "none", "limits": "none"})

    async def locate(self, command: str) -> Availability:
        found = shutil.which(command)
        if found is None:
            return Availability(False, f"{command} is not on the PATH.", f"install {command}, or name its path")
        return Availability(True, details={"path": found})

    async def prepare(self, workspace_id: str) -> None:
        root = self._root(workspace_id)
        for folder in (root, root / "workspace", root / "home", root / "tmp"):
            folder.mkdir(mode=0o700, exist_ok=True)

    async def remove(self, workspace_id: str) -> None:
        root = self._root(workspace_id)
        if root.is_dir():
            await anyio.to_thread.run_sync(_remove, root)

    async def write_home(self, workspace_id: str, path: str, content: bytes) -> None:
        home = self._root(workspace_id) / "home"
        target = home / path
        if not path or ".." in Path(path).parts or not target.parent.resolve().is_relative_to(home.resolve()):
            raise errors.ValidationFailed("path", f"{path!r} is no path below the home")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)

    def spawn(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Process]:
        return self._spawn(spec)

    @asynccontextmanager
    async def _spawn(self, spec: ProcessSpec) -> AsyncIterator[PlainProcess]:
        if not self._allowed:
            raise errors.Unavailable(_REFUSED, fix=_FIX)
        root = self._root(spec.workspace_id)
        if not root.is_dir():
            raise errors.NotFound("workspace", spec.workspace_id)
        guardian.ensure(self._owner)
        logger.warning("NO JAIL: %s runs with all rights of this user", spec.command[0])
        try:
            command = (self._outside(spec.command[0], root), *spec.command[1:])
            process = start(command, self._outside(spec.cwd, root), self._env(spec, root), self._owner)
        except OSError as error:
            reason = f"{spec.command[0]} cannot be started: {error.strerror}"
            raise errors.Unavailable(reason, fix=f"install {spec.command[0]}, or name its path") from error
        self._labels[process.ref] = dict(spec.labels)
        try:
            yield process
        finally:
            await process.kill()
            process.close()
            del self._labels[process.ref]

    async def run(
        self, spec: ProcessSpec, *, stdin: bytes = b"", timeout_s: float = 60.0, max_output_bytes: int = 8 << 20
    ) -> Result:
        async with self._spawn(spec) as process:
            try:
                outcome = await run_to_end(process, stdin, timeout_s, max_output_bytes)
            except TimeoutError as error:
                raise errors.TimedOut(f"{spec.command[0]} took longer than {timeout_s:g} s") from error
        return Result(outcome.exit_code, outcome.stdout, outcome.stderr, outcome.truncated)

    async def list_owned(self) -> list[Owned]:
        """Those of a dead host have no labels: a plain process has no record but its mark."""
        found = await anyio.to_thread.run_sync(records.jails, self._owner.name)
        return [Owned(process.id, self._labels.get(process.id, {}), True) for process in found]

    async def adopt(self, ref: str, position: int) -> Process | None:
        """Never: its pipes died with the host."""
        return None

    async def reap(self, ref: str) -> bool:
        for process in await anyio.to_thread.run_sync(records.leftovers, self._owner.name):
            if process.id == ref:
                return await anyio.to_thread.run_sync(records.end, process)
        return False

    def _root(self, workspace_id: str) -> Path:
        if not _ID.fullmatch(workspace_id):
            raise errors.ValidationFailed("workspace_id", f"{workspace_id!r} is no workspace id")
        return self._folder / workspace_id

    def _outside(self, path: str, root: Path) -> str:
        for inside, folder in ((WORKSPACE, root / "workspace"), (HOME, root / "home")):
            if path == inside or path.startswith(inside + "/"):
                return str(folder) + path[len(inside) :]
        return path

    def _env(self, spec: ProcessSpec, root: Path) -> dict[str, str]:
        return {
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **spec.env,
        }


def _remove(root: Path) -> None:
    """Also what its owner may not write to (Go's module cache): a folder must be writable to be emptied."""
    for folder, names, _ in os.walk(root):
        for name in names:
            inner = os.path.join(folder, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(root)
