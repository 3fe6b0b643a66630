"""The docker runtime: places of this machine, and a container for each process in them."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from kandev_docker import DockerSettings, containers, owned
from kandev_docker.copies import Copies
from kandev_docker.engine import Engine, EngineGone, Facts, shortfall, socket_path, unfit
from kandev_docker.images import Images
from kandev_docker.process import ContainerProcess
from kandev_docker.pulls import Pulls
from kandev_docker.request import command_inside
from kandev_docker.shells import open_shell
from kandev_docker.sidecars import Sidecars
from kandev_docker.terminals import ContainerTerminal, check_size
from kandev_host import (
    Availability,
    Owned,
    Process,
    ProcessSpec,
    Pull,
    Shell,
    Terminal,
    errors,
)
from kandev_places.decisions import Unreached
from kandev_places.places import Place
from kandev_places.runtimes import ConfinedRuntime, Short, refused
from kandev_sandbox import HOME, WORKSPACE, SandboxError
from kandev_sandbox.short import run_to_end

log = logging.getLogger(__name__)
SWEEP_RETRY_S, SWEEP_RETRY_LIMIT_S = 1.0, 30.0
CLOSE_S = 15.0
LOCATE_TIMEOUT_S = 30.0
_INSIDE = (WORKSPACE + "/", HOME + "/", "./", "../")


class DockerRuntime(ConfinedRuntime):
    """Use as an async context manager: leaving it removes what is left of its containers."""

    name = "docker"

    def __init__(self, settings: DockerSettings, data_dir: Path) -> None:
        super().__init__(settings, data_dir, "containers")
        self._settings = settings
        self._adopts = settings.after_host_death == "adopt"
        self._engine = Engine(socket_path(settings.socket), settings.engine_timeout_s)
        self._pulls = Pulls(self._engine, settings.pull_timeout_s, settings.pull_stall_s)
        self._images = Images(self._engine, settings.pull, self._pulls)
        self._running: set[str] = set()
        self._located: dict[tuple[str, str], Availability] = {}
        self._left: set[str] = set()
        self._sweep_wanted = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._ground = containers.Ground(
            settings=settings,
            engine=self._engine,
            images=self._images,
            owner=self._owner,
            decisions=self._decisions,
            gates=self._gates,
            copies=Copies(data_dir / "copies"),
            running=self._running,
            closed=(str(data_dir),),
            profile=data_dir / "seccomp.json",
            left=self._leave,
        )
        self._sidecars = Sidecars(self._ground, self.held)

    async def __aenter__(self) -> DockerRuntime:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._pulls.open(self._tasks)
        self._sweep_wanted.set()
        await anyio.to_thread.run_sync(self._ground.copies.sweep)
        try:
            await self._sweep()
        except errors.Unavailable as error:
            log.warning("nothing starts in containers: %s (fix: %s)", error.message, error.details.get("fix", "none"))
        self._tasks.start_soon(self._sweeping)
        self._sidecars.tasks = self._tasks
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sidecars.tasks = None
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)
        with anyio.move_on_after(CLOSE_S, shield=True):
            if self._left:
                try:
                    await self._sweep()
                except errors.Unavailable as gone:
                    log.warning("containers are left for the next start: %s", gone.message)
            await anyio.to_thread.run_sync(self.close)
            await anyio.to_thread.run_sync(self._engine.close)

    def _leave(self, name: str) -> None:
        self._left.add(name)
        self._sweep_wanted.set()

    async def _sweeping(self) -> None:
        """Remove what could not be removed, as soon as the engine answers again."""
        delay_s = SWEEP_RETRY_S
        while True:
            await self._sweep_wanted.wait()
            try:
                await self._sweep()
            except errors.Unavailable as error:
                log.debug("the engine is asked again in %g s: %s", delay_s, error.message)
                await anyio.sleep(delay_s)
                delay_s = min(2 * delay_s, SWEEP_RETRY_LIMIT_S)
            else:
                delay_s = SWEEP_RETRY_S

    async def _sweep(self) -> None:
        """Remove our own leftovers, and those of dead hosts except what runs and may be adopted."""
        self._sweep_wanted = anyio.Event()
        try:
            for found in await owned.find(self._engine, self._owner):
                if found.ref in self._running:
                    continue
                kept = found.running and (found.adoptable or found.host_alive)
                if found.of_this_process or not kept:
                    await owned.remove(self._engine, found.id)
                self._left.discard(found.ref)
        except errors.Unavailable:
            self._sweep_wanted.set()
            raise
        self._left.clear()

    async def probe(self) -> Availability:
        try:
            facts = await self._engine.facts()
            details = self._told(facts)
            if (problem := unfit(facts, containers.needed(self._settings, self._settings.cpu_limit))) is not None:
                return Availability(False, *problem, details)
            image = await self._images.here(self._settings.image)
        except errors.Unavailable as error:
            return Availability(False, error.message, error.details.get("fix"))
        details["image"] = self._settings.image + ("" if image else " (to be pulled)")
        return Availability(True, details=details)

    def _told(self, facts: Facts) -> dict[str, Any]:
        short = shortfall(facts)
        return {
            "version": facts.version,
            "api": facts.api,
            "socket": self._engine.path,
            "root": os.geteuid() == 0,
            "allowlist": "no: " + why if (why := _no_allowlist(facts)) else "yes",
            "cgroups": facts.cgroup_version,
            "bounds": sorted(facts.bounds),
            "limits": "full" if short is None else "partial",
            "limits_reason": short and short[0],
            "limits_fix": short and short[1],
            **facts.details,
        }

    async def locate(self, command: str, image: str | None = None) -> Availability:
        """Asked of the image once; of one that is to be pulled nobody knows. Raises `EngineGone`."""
        name = image or self._settings.image
        try:
            found = await self._images.here(name)
            if found is None:
                return Availability(True, details={"image": f"{name} (to be pulled)"})
            key = (found.id, command)
            if key not in self._located:
                self._located[key] = await self._looked_up(command, name)
        except EngineGone:
            raise
        except errors.Unavailable as error:
            return Availability(False, error.message, error.details.get("fix"))
        return self._located[key]

    async def _looked_up(self, command: str, image: str) -> Availability:
        ask = ("sh", "-c", 'command -v -- "$1"', "sh", command_inside(command))
        spec = ProcessSpec(workspace_id="", command=ask, cwd="/", image=image)
        async with containers.opened(self._ground, spec, None) as process:
            try:
                done = await run_to_end(process, b"", LOCATE_TIMEOUT_S, 4096)
            except TimeoutError as error:
                raise EngineGone(f"The image {image} did not answer in time.", fix="try again") from error
        if done.exit_code != 0:
            fix = f"use an image that has {command}: image of [agents.NAME], or of [runtime.docker]"
            return Availability(False, f"The image {image} has no {command}.", fix, {"found": False})
        return Availability(True, details={"path": done.stdout.decode(errors="replace").strip(), "trees": []})

    async def fetch(self, image: str | None, labels: Mapping[str, str]) -> None:
        await self._images.ready(image or self._settings.image, labels)

    def pulls(self) -> AsyncIterator[Pull]:
        return self._pulls.read()

    async def _check_command(self, spec: ProcessSpec) -> None:
        """Raises `Unavailable` for what the image has not; what is in the place itself, the start shows."""
        if spec.command[0].startswith(_INSIDE):
            return
        await self.fetch(spec.image, spec.labels)
        found = await self.locate(spec.command[0], spec.image)
        if not found.ok:
            raise errors.Unavailable(str(found.reason), fix=found.fix)

    def spawn(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Process]:
        return self._spawn(spec, containers.Opening(adoptable=spec.adoptable and self._adopts))

    @asynccontextmanager
    async def _spawn(
        self, spec: ProcessSpec, how: containers.Opening = containers.PLAIN
    ) -> AsyncIterator[ContainerProcess]:
        async with self._ready(spec) as place, self._opened(spec, place, how) as process:
            yield process

    @asynccontextmanager
    async def _ready(self, spec: ProcessSpec) -> AsyncIterator[Place]:
        """Its place, with an image that has its command."""
        try:
            async with self.held(spec.workspace_id) as place:
                await self._check_command(spec)
                yield place
        except SandboxError as error:
            raise refused(error) from error

    @asynccontextmanager
    async def _opened(
        self, spec: ProcessSpec, place: Place, how: containers.Opening
    ) -> AsyncIterator[ContainerProcess]:
        async with (
            containers.opened(self._ground, spec, place, how) as process,
            self._watched(process, spec.workspace_id, spec.limits.disk_limit),
        ):
            yield process

    @asynccontextmanager
    async def _short(self, spec: ProcessSpec, unreached: Unreached) -> AsyncIterator[Short]:
        async with self._ready(spec) as place, self._sidecars.command(spec) as command:
            if command is None:
                async with self._opened(spec, place, containers.Opening(unreached=unreached)) as process:
                    yield process
            else:
                async with self._watched(command, spec.workspace_id, spec.limits.disk_limit):
                    yield command

    async def remove(self, workspace_id: str) -> None:
        await self._sidecars.leave(workspace_id)
        await super().remove(workspace_id)

    def open_shell(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Shell]:
        return open_shell(lambda change: self._spawn(spec, containers.Opening(shell=change)), spec)

    def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> AbstractAsyncContextManager[Terminal]:
        return self._open_terminal(spec, columns, rows)

    @asynccontextmanager
    async def _open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> AsyncIterator[ContainerTerminal]:
        check_size(columns, rows)
        async with self._spawn(spec, containers.Opening(size=(columns, rows))) as process:
            yield ContainerTerminal(process, self._engine)

    async def list_owned(self) -> list[Owned]:
        """Without those beside workspaces, in which nothing runs by itself: they end with their host."""
        return [
            Owned(found.ref, found.labels, True) for found in await self._found() if found.running and not found.sidecar
        ]

    async def adopt(self, ref: str, position: int) -> Process | None:
        """The host has it until it ends, as if it had been spawned; its stderr is not read. None by the settings."""
        if not self._adopts:
            return None
        for found in await self._found():
            orphan = ref not in self._running and (found.of_this_process or not found.host_alive)
            if found.ref == ref and orphan and found.running and found.adoptable and self._tasks is not None:
                adopted: ContainerProcess | None = await self._tasks.start(self._adopted, found, position)
                return adopted
        return None

    async def _adopted(
        self, found: owned.Found, position: int, *, task_status: TaskStatus[ContainerProcess | None]
    ) -> None:
        taken = False
        try:
            async with AsyncExitStack() as stack:
                place = await stack.enter_async_context(self.held(found.workspace_id))
                process = await stack.enter_async_context(containers.adopted(self._ground, found, place, position))
                await stack.enter_async_context(self._watched(process, found.workspace_id))
                taken = True
                task_status.started(process)
                await process.wait()
        except (errors.KandevError, SandboxError) as error:
            log.warning("container %s is not adopted: %s", found.ref, error)
            if not taken:
                task_status.started(None)

    async def reap(self, ref: str) -> bool:
        for found in await self._found():
            if found.ref == ref and ref not in self._running and (found.of_this_process or not found.host_alive):
                await owned.remove(self._engine, found.id)
                return found.running
        return False

    async def _found(self) -> list[owned.Found]:
        return await owned.find(self._engine, self._owner)


def _no_allowlist(facts: Facts) -> str | None:
    if os.geteuid() != 0:
        return "this host does not run as root"
    return "the engine does not run as root" if facts.rootless else None
