"""The bwrap runtime: places, programs and jails."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio

from kandev_bwrap import BwrapSettings
from kandev_bwrap.places import Place, Places
from kandev_bwrap.process import JailProcess
from kandev_host import Availability, Mount, Owned, Process, ProcessSpec, Result, errors
from kandev_sandbox import (
    HOME,
    WORKSPACE,
    Bind,
    Jailed,
    Limits,
    Owner,
    Policy,
    Program,
    ProgramNotFound,
    Report,
    SandboxError,
    Uids,
    end,
    examine,
    jails,
    open_jail,
    resolve,
    sweep,
)
from kandev_sandbox.short import run_to_end

_INSIDE = (WORKSPACE + "/", HOME + "/")


class BwrapRuntime:
    """Each workspace is a place of its own; each process a jail of its own in it."""

    name = "bwrap"

    def __init__(self, settings: BwrapSettings, data_dir: Path) -> None:
        uids = Uids(data_dir / "uids", settings.uid_first, settings.uid_count) if os.geteuid() == 0 else None
        self._settings = settings
        self._places = Places(data_dir / "workspaces", uids)
        self._records = data_dir / "jails"
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owner = Owner.here(hashlib.sha256(str(data_dir).encode()).hexdigest()[:16])
        self._report: Report | None = None
        self._examining = anyio.Lock()
        self._in_use: Counter[str] = Counter()

    async def sweep(self) -> None:
        """End the jails of dead hosts with this data folder."""
        await anyio.to_thread.run_sync(sweep, self._owner.name, self._records)

    async def probe(self) -> Availability:
        self._report = None
        report = await self._examined()
        details = report.as_json()
        try:
            report.chosen()
        except SandboxError as error:
            return Availability(False, error.reason, error.fix, details)
        return Availability(True, details=details)

    async def locate(self, command: str) -> Availability:
        try:
            program = await anyio.to_thread.run_sync(self._resolve, (command,))
        except SandboxError as error:
            # What is there but cannot be used needs another fix than its installation.
            return Availability(False, error.reason, error.fix, {"found": not isinstance(error, ProgramNotFound)})
        return Availability(True, details={"path": program.argv[0], "trees": [str(tree) for tree in program.trees]})

    async def prepare(self, workspace_id: str) -> None:
        await anyio.to_thread.run_sync(self._places.prepare, workspace_id)

    async def remove(self, workspace_id: str) -> None:
        """Raises `Conflict` while a process runs there (its uid must not be given to another place), `Unavailable`."""
        if self._in_use[workspace_id]:
            raise errors.Conflict("Processes still run in this workspace", workspace_id=workspace_id)
        try:
            await anyio.to_thread.run_sync(self._places.remove, workspace_id)
        except (OSError, SandboxError) as error:
            raise errors.Unavailable(
                f"The workspace cannot be deleted: {error}", fix=f"remove {self._places.folder / workspace_id} by hand"
            ) from error

    async def write_home(self, workspace_id: str, path: str, content: bytes) -> None:
        await anyio.to_thread.run_sync(self._places.write_home, workspace_id, path, content)

    def spawn(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Process]:
        return self._spawn(spec)

    @asynccontextmanager
    async def _spawn(self, spec: ProcessSpec) -> AsyncIterator[JailProcess]:
        async with AsyncExitStack() as stack:
            try:
                bwrap = (await self._examined()).chosen()
                place = await anyio.to_thread.run_sync(self._places.get, spec.workspace_id)
                program = await anyio.to_thread.run_sync(self._resolve, spec.command)
                self._in_use[spec.workspace_id] += 1
                stack.callback(self._in_use.subtract, (spec.workspace_id,))
                jail = await stack.enter_async_context(
                    open_jail(
                        self._policy(spec, place, program),
                        program.argv,
                        bwrap=bwrap,
                        cwd=spec.cwd,
                        owner=self._owner,
                        folder=self._records,
                        labels=spec.labels,
                    )
                )
            except SandboxError as error:
                raise errors.Unavailable(error.reason, fix=error.fix) from error
            yield JailProcess(jail)

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
        found = await self._jails()
        return [Owned(jail.id, jail.labels, True) for jail in found]

    async def adopt(self, ref: str, position: int) -> Process | None:
        """Never: a jail dies with its host."""
        return None

    async def reap(self, ref: str) -> bool:
        for jail in await self._jails():
            if jail.id == ref and not jail.host_alive:
                return await anyio.to_thread.run_sync(end, jail)
        return False

    async def _jails(self) -> list[Jailed]:
        """Those of this data folder. It only reads, so whoever has no time left need not wait for its end."""
        return await anyio.to_thread.run_sync(jails, self._owner.name, self._records, abandon_on_cancel=True)

    async def _examined(self) -> Report:
        """The doctor's report, made once; asked again while there is no usable bubblewrap."""
        async with self._examining:
            if self._report is None or not self._report.ok:
                chosen = self._settings.bwrap
                self._report = await examine([Path(chosen)] if chosen else None)
            return self._report

    def _resolve(self, command: tuple[str, ...]) -> Program:
        if command[0].startswith(_INSIDE):
            return Program(command, (), ())
        search = os.pathsep.join((*map(os.path.expanduser, self._settings.path), os.environ.get("PATH", os.defpath)))
        return resolve(command[0], *command[1:], search=search)

    def _policy(self, spec: ProcessSpec, place: Place, program: Program) -> Policy:
        limits = Limits(
            open_files=self._settings.max_open_files,
            processes=self._settings.max_processes,
            file_bytes=self._settings.max_file_bytes,
        )
        policy = Policy(
            workspace=place.workspace,
            home=place.home,
            tmp=place.tmp,
            path=program.path_entries,
            env=spec.env,
            network=spec.network,
            allow=spec.allow if spec.network == "none" else (),
            nested=spec.nested_sandbox,
            uid=place.uid,
            limits=limits,
        )
        mounts = tuple(map(_bind, spec.mounts))
        claimed = {bind.inside for bind in mounts}
        return replace(policy, binds=(*mounts, *(bind for bind in program.binds if bind.inside not in claimed)))


def _bind(mount: Mount) -> Bind:
    target = HOME + mount.target[1:] if mount.target.startswith("~/") else mount.target
    return Bind(Path(mount.source).expanduser(), target, mount.read_only)
