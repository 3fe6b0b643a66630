"""The bwrap runtime: places, programs and jails."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio

from kandev_bwrap import BwrapSettings
from kandev_bwrap.process import JailProcess
from kandev_bwrap.shells import PLAIN, Opening, open_shell, open_terminal
from kandev_host import (
    Availability,
    Mount,
    Owned,
    Process,
    ProcessSpec,
    Shell,
    Terminal,
    errors,
)
from kandev_places.decisions import Unreached, hint
from kandev_places.limits import limits_of
from kandev_places.places import Place
from kandev_places.runtimes import ConfinedRuntime, Short, refused
from kandev_sandbox import (
    HOME,
    WORKSPACE,
    Bind,
    Jailed,
    Policy,
    Program,
    ProgramNotFound,
    Report,
    SandboxError,
    end,
    examine,
    jails,
    open_jail,
    resolve,
    sweep,
)
from kandev_sandbox.shell import sweep as sweep_shells

log = logging.getLogger(__name__)
SNAPSHOTS = "/snapshots"
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_INSIDE = (WORKSPACE + "/", HOME + "/")


class BwrapRuntime(ConfinedRuntime):
    """Each workspace is a place of its own; each process a jail of its own in it."""

    name = "bwrap"

    def __init__(self, settings: BwrapSettings, data_dir: Path) -> None:
        super().__init__(settings, data_dir, "workspaces")
        self._settings = settings
        self._records = data_dir / "jails"
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._report: Report | None = None
        self._examining = anyio.Lock()

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

    def spawn(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Process]:
        return self._spawn(spec)

    def _short(self, spec: ProcessSpec, unreached: Unreached) -> AbstractAsyncContextManager[Short]:
        return self._spawn(spec, Opening(change=unreached.onto))

    @asynccontextmanager
    async def _spawn(self, spec: ProcessSpec, how: Opening = PLAIN) -> AsyncIterator[JailProcess]:
        async with AsyncExitStack() as stack:
            try:
                bwrap = (await self._examined()).chosen()
                place = await stack.enter_async_context(self.held(spec.workspace_id))
                program = await anyio.to_thread.run_sync(self._resolve_all, spec)
                policy, argv = how.change(self._policy(spec, place, program), program.argv)
                namespace = await stack.enter_async_context(self.entered(place))
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
                raise refused(error) from error
            except OSError as error:
                if error.errno not in FULL_ERRNOS:
                    raise
                raise errors.StorageFull("The disk is full: no jail can be made") from error
            await stack.enter_async_context(self._watched(jail, spec.workspace_id, spec.limits.disk_limit))
            if jail.gate is not None:
                stack.enter_context(self._gates.of(jail.gate, spec.labels))
            yield JailProcess(jail)

    def open_shell(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Shell]:
        return open_shell(self._spawn, spec)

    def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> AbstractAsyncContextManager[Terminal]:
        return open_terminal(self._spawn, spec, columns, rows)

    async def list_owned(self) -> list[Owned]:
        found = await self._jails()
        return [Owned(jail.id, jail.labels, True) for jail in found]

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
