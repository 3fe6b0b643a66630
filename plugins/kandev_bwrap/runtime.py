"""The bwrap runtime: places, programs and jails."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import anyio

from kandev_bwrap import BwrapSettings
from kandev_bwrap.process import JailProcess
from kandev_bwrap.shells import PLAIN, Opening, open_shell, open_terminal
from kandev_host import (
    Availability,
    FileContent,
    FileEntry,
    Mount,
    NetworkDecision,
    Owned,
    PlaceUse,
    Process,
    ProcessSpec,
    Result,
    Shell,
    Terminal,
    errors,
)
from kandev_places.decisions import Decisions, Gates, Unreached, hint
from kandev_places.held import HeldPlaces
from kandev_places.limits import limits_of, quota_of
from kandev_places.places import Place, Places
from kandev_sandbox import (
    HOME,
    WORKSPACE,
    Bind,
    Jailed,
    Owner,
    Policy,
    PolicyError,
    Program,
    ProgramNotFound,
    Report,
    SandboxError,
    Uids,
    end,
    examine,
    expand_allow,
    jails,
    open_jail,
    resolve,
    sweep,
)
from kandev_sandbox.shell import sweep as sweep_shells
from kandev_sandbox.short import run_to_end

log = logging.getLogger(__name__)
SNAPSHOTS = "/snapshots"
_INSIDE = (WORKSPACE + "/", HOME + "/")


class BwrapRuntime:
    """Each workspace is a place of its own; each process a jail of its own in it."""

    name = "bwrap"
    confines = True

    def __init__(self, settings: BwrapSettings, data_dir: Path) -> None:
        uids = Uids(data_dir / "uids", settings.uid_first, settings.uid_count) if os.geteuid() == 0 else None
        self._settings = settings
        places = Places(data_dir / "workspaces", uids, quota_of(settings, None), settings.disk)
        self._places = HeldPlaces(places, settings.disk_watch_interval_s)
        self._records = data_dir / "jails"
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owner = Owner.here(hashlib.sha256(str(data_dir).encode()).hexdigest()[:16])
        self._report: Report | None = None
        self._examining = anyio.Lock()
        self._decisions = Decisions()
        self._gates = Gates()

    async def sweep(self) -> None:
        """End the jails of dead hosts with this data folder, and remove the folders of dead shells."""
        await anyio.to_thread.run_sync(sweep, self._owner.name, self._records)
        await anyio.to_thread.run_sync(sweep_shells)

    async def preflight(self) -> None:
        """Make one jail of the full profile, and log what is missing, with the fix. Without it nothing starts here."""
        try:
            bwrap = (await self._examined()).chosen()
        except SandboxError as error:
            log.warning("no jail can be made, so nothing starts in it: %s (fix: %s)", error.reason, error.fix or "none")
        else:
            log.debug("jails are made with %s (bubblewrap %s)", bwrap.path, bwrap.version_text)

    def close(self) -> None:
        """Unmount the volumes; nothing runs in them any more. Blocks."""
        self._places.close()

    async def probe(self) -> Availability:
        self._report = None
        report = await self._examined()
        details = report.as_json()
        try:
            report.chosen()
        except SandboxError as error:
            return Availability(False, error.reason, error.fix, details)
        return Availability(True, details=details)

    async def locate(self, command: str, image: str | None = None) -> Availability:
        try:
            program = await anyio.to_thread.run_sync(self._resolve, (command,))
        except SandboxError as error:
            # What is there but cannot be used needs another fix than its installation.
            return Availability(False, error.reason, error.fix, {"found": not isinstance(error, ProgramNotFound)})
        return Availability(True, details={"path": program.argv[0], "trees": [str(tree) for tree in program.trees]})

    async def prepare(self, workspace_id: str) -> None:
        await self._places.prepare(workspace_id)

    async def remove(self, workspace_id: str) -> None:
        await self._places.remove(workspace_id)

    async def write_home(self, workspace_id: str, path: str, content: bytes) -> None:
        await self._places.write_home(workspace_id, path, content)

    def spawn(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Process]:
        return self._spawn(spec)

    @asynccontextmanager
    async def _spawn(self, spec: ProcessSpec, how: Opening = PLAIN) -> AsyncIterator[JailProcess]:
        async with AsyncExitStack() as stack:
            try:
                bwrap = (await self._examined()).chosen()
                place = await stack.enter_async_context(self._places.held(spec.workspace_id))
                program = await anyio.to_thread.run_sync(self._resolve_all, spec)
                policy, argv = how.change(self._policy(spec, place, program), program.argv)
                namespace = await stack.enter_async_context(self._places.entered(place))
                jail = await stack.enter_async_context(
                    open_jail(
                        policy,
                        argv,
                        bwrap=bwrap,
                        cwd=how.cwd or spec.cwd,
                        streams=how.streams,
                        as_init=how.as_init,
                        owner=self._owner,
                        folder=self._records,
                        labels=spec.labels,
                        namespace=namespace,
                    )
                )
            except SandboxError as error:
                raise errors.Unavailable(error.reason, fix=error.fix) from error
            if self._settings.disk != "none":
                quota = quota_of(self._settings, spec.limits.disk_limit)
                await stack.enter_async_context(self._places.watching(spec.workspace_id, jail, quota))
            if jail.gate is not None:
                stack.enter_context(self._gates.of(jail.gate, spec.labels))
            yield JailProcess(jail)

    async def run(
        self, spec: ProcessSpec, *, stdin: bytes = b"", timeout_s: float = 60.0, max_output_bytes: int = 8 << 20
    ) -> Result:
        unreached = Unreached()
        async with self._spawn(spec, Opening(change=unreached.onto)) as process:
            try:
                outcome = await run_to_end(process, stdin, timeout_s, max_output_bytes)
            except TimeoutError as error:
                raise errors.TimedOut(f"{spec.command[0]} took longer than {timeout_s:g} s") from error
            ending = process.ending
        return Result(**asdict(outcome), ending=ending, unreached=unreached.words)

    def open_shell(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Shell]:
        return open_shell(self._spawn, spec)

    def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> AbstractAsyncContextManager[Terminal]:
        return open_terminal(self._spawn, spec, columns, rows)

    async def list_files(
        self, workspace_id: str, path: str, depth: int, limit: int, after: str = ""
    ) -> list[FileEntry]:
        return await self._places.list_files(workspace_id, path, depth, limit, after)

    async def read_file(self, workspace_id: str, path: str, offset: int, limit_bytes: int) -> FileContent:
        return await self._places.read_file(workspace_id, path, offset, limit_bytes)

    async def use(self, workspace_id: str) -> PlaceUse:
        return await self._places.use(workspace_id)

    def decisions(self) -> AsyncIterator[NetworkDecision]:
        return self._decisions.read()

    def check_allow(self, entries: Sequence[str]) -> None:
        try:
            expand_allow(entries)
        except PolicyError as error:
            raise errors.ValidationFailed("allow", str(error)) from error

    def allow(self, labels: Mapping[str, str], entries: Sequence[str]) -> None:
        self._gates.allow(labels, entries)

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

    def _resolve_all(self, spec: ProcessSpec) -> Program:
        """The command of `spec`, with all that its further programs need as well."""
        first = self._resolve(spec.command)
        others = [self._resolve((name,)) for name in spec.programs]
        entries = (entry for program in (first, *others) for entry in program.path_entries)
        trees = (tree for program in (first, *others) for tree in program.trees)
        return Program(first.argv, tuple(dict.fromkeys(entries)), tuple(dict.fromkeys(trees)))

    def _resolve(self, command: tuple[str, ...]) -> Program:
        if command[0].startswith(_INSIDE):
            return Program(command, (), ())
        search = os.pathsep.join((*map(os.path.expanduser, self._settings.path), os.environ.get("PATH", os.defpath)))
        return resolve(command[0], *command[1:], search=search)

    def _policy(self, spec: ProcessSpec, place: Place, program: Program) -> Policy:
        policy = Policy(
            workspace=place.workspace,
            # Beside the snapshots there is nothing that the agent can write to while they are made.
            home=None if spec.snapshots else place.home,
            tmp=None if spec.snapshots else place.tmp,
            path=program.path_entries,
            env=spec.env,
            network=spec.network,
            allow=spec.allow if spec.network != "host" else (),
            allow_hint=hint(spec.labels),
            on_decision=self._decisions.adder(spec.labels),
            nested=spec.nested_sandbox,
            workspace_read_only=spec.read_only,
            protected=spec.protected,
            pin_git=spec.pin_git,
            uid=place.uid,
            limits=limits_of(self._settings, spec.limits),
        )
        mounts = tuple(map(_bind, spec.mounts))
        if spec.snapshots:
            mounts = (*mounts, Bind(place.snapshots, SNAPSHOTS, read_only=False))
        claimed = {bind.inside for bind in mounts}
        return replace(policy, binds=(*mounts, *(bind for bind in program.binds if bind.inside not in claimed)))


def _bind(mount: Mount) -> Bind:
    target = HOME + mount.target[1:] if mount.target.startswith("~/") else mount.target
    return Bind(Path(mount.source).expanduser(), target, mount.read_only)
