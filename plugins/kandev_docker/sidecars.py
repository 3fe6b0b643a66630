"""Containers that stay beside a workspace for a while, for the host's short commands: git, snapshots.

Making a container takes several times as long as a command in one that is there. It is made, held, found and removed
as every other, and only commands that would see the same in one of their own share one: without a network, without
mounts of theirs, and with nothing that is pinned when the container is made. Nothing of a command reaches the next:

- The container's own processes belong to another uid: no command can signal or trace them.
- One command at a time; meanwhile another gets a container of its own.
- After each the kernel counts the tasks of the container. It ends, with all in it, if there is one more than before
  the first of them, or if the command did not end by itself (a signal, its time, its caller's end).
- Before each its tmpfs and its System V memory are looked at: where there is anything it ends, and the command has
  not begun.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from kandev_docker import containers, execs, inside, owned
from kandev_docker.execs import Exec
from kandev_docker.process import ContainerProcess
from kandev_docker.request import command_inside
from kandev_host import ProcessSpec, errors
from kandev_places.places import Place
from kandev_sandbox import SandboxError
from kandev_sandbox.beside import beside

log = logging.getLogger(__name__)
AT_ONCE = 8
IDLE_S = 60.0
CLOSE_S = 30.0
SETTLE_S = 1.0
# Until its stdin ends: at the latest with its host.
_KEEP = ("cat",)
_EVERYWHERE = ("/dev/shm", "/dev/mqueue")  # noqa: S108 - of the container
_GATE = """
left=$(find {scratch} -xdev -mindepth 1 -print -quit) && [ -z "$left" ] || exit 125
[ "$(cat /proc/sysvipc/* 2>/dev/null | grep -vc key)" = 0 ] || exit 125
printf '%s\\n' "$0"
exec "$@"
"""
_BY_ITSELF = range(128)
_UNFIT = {125, 126, 127}  # what is there from the start, or lacks there
Held = Callable[[str], AbstractAsyncContextManager[Place]]


class Sidecar:
    """One of them. Somebody must be in `own` for as long as it lives."""

    def __init__(self, ground: containers.Ground, held: Held, spec: ProcessSpec) -> None:
        self.spec = replace(
            spec, command=_KEEP, cwd="/", env={}, programs=(), adoptable=False, labels={"purpose": owned.SIDECAR}
        )
        self.gone = anyio.Event()
        self.busy = True
        self.used_s = anyio.current_time()
        self.fit = True
        self._ground = ground
        self._held = held
        self._opened = anyio.Event()
        self._scope = anyio.CancelScope()
        self._failure: errors.KandevError | None = None
        self._process: ContainerProcess | None = None
        self._id = ""
        self._user = ""
        self._gate = ""
        self._used = False
        self._tasks: int | None = None

    @property
    def ending(self) -> bool:
        return self._scope.cancel_called

    def end(self) -> None:
        """Returns at once: `gone` says when."""
        self._scope.cancel()

    def free(self) -> None:
        """Its command has ended, and left nothing."""
        self.busy, self.used_s = False, anyio.current_time()

    async def own(self) -> None:
        """Until it is told to end, has ended by itself, or nobody has needed it for a minute."""
        try:
            with self._scope:
                async with (
                    self._held(self.spec.workspace_id) as place,
                    containers.opened(self._ground, self.spec, place, containers.SIDECAR) as process,
                ):
                    await self._settle(process, place)
                    self._opened.set()
                    await self._until_idle(process)
        except errors.KandevError as error:
            self._failure = error
        except SandboxError as error:
            self._failure = errors.Unavailable(error.reason, fix=error.fix)
        except Exception as error:  # a fault here must end neither the runtime nor other commands
            log.exception("the container beside workspace %s failed", self.spec.workspace_id)
            self._failure = errors.Unavailable(f"The runtime failed: {type(error).__name__}")
        finally:
            self._scope.cancel()
            self._opened.set()
            self.gone.set()

    async def _settle(self, process: ContainerProcess, place: Place) -> None:
        engine = self._ground.engine
        self._user = containers.user_of(place, await engine.known())
        made = await engine.call(lambda client: client.inspect_container(process.ref))
        scratch = sorted({*(made["HostConfig"].get("Tmpfs") or ()), *_EVERYWHERE})
        self._gate = _GATE.format(scratch=shlex.join(scratch))
        self._id = str(made["Id"])
        self._tasks = await self._count(process)
        self.fit = self._tasks is not None and made["Config"]["User"] != self._user
        self._process = process

    async def _until_idle(self, process: ContainerProcess) -> None:
        while True:
            rest_s = IDLE_S if self.busy else self.used_s + IDLE_S - anyio.current_time()
            if rest_s <= 0:
                self.end()  # now, so that nobody takes it while it goes
            with anyio.move_on_after(rest_s):
                await process.wait()
                return

    async def start(self, stack: AsyncExitStack, spec: ProcessSpec) -> Exec | None:
        """The command, running until the stack is left; None if it cannot run here. Raises what keeps it away."""
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure
        if self._process is None or self.ending or not self.fit:
            return None
        marker = owned.marker_of(self._process.ref)
        command = ("sh", "-c", self._gate, marker, command_inside(spec.command[0]), *spec.command[1:])
        try:
            running = await execs.start(self._ground.engine, self._process, command, spec, self._user, marker)
        except errors.Unavailable as error:
            log.debug("nothing starts in container %s: %s", self._process.ref, error.message)
            return None  # it has died: a container of its own shows what is wrong
        stack.callback(running.close)
        tasks = await stack.enter_async_context(beside())
        tasks.start_soon(running.watch)
        if not await running.begun():
            with anyio.move_on_after(SETTLE_S):
                await running.wait()
            self.fit = self._used or running.exit_code not in _UNFIT
            return None
        self._used = True
        containers.bound(tasks, running, self._ground.settings.time_limit_s)
        return running

    async def empty(self, command: Exec) -> bool:
        """Has the command ended by itself, and all that it started?"""
        met = command.ending is not None or command.exit_code not in _BY_ITSELF
        if met or self._process is None or self._process.init is None:
            return False
        until_s = anyio.current_time() + SETTLE_S
        while await self._count(self._process) != self._tasks:
            if anyio.current_time() > until_s:
                return False
            await anyio.sleep(0.01)  # what ends at the same time is counted until it has been waited for
        return not self.ending

    async def _count(self, process: ContainerProcess) -> int | None:
        init = process.init
        return None if init is None else await anyio.to_thread.run_sync(inside.tasks, init.pid, self._id)


class Sidecars:
    """At most `AT_ONCE`: the ones that were idle longest make room."""

    def __init__(self, ground: containers.Ground, held: Held) -> None:
        self._ground = ground
        self._held = held
        self._open: dict[tuple[object, ...], Sidecar] = {}
        self._unfit: set[str] = set()
        self.tasks: TaskGroup | None = None  # in which they live; without it there are none

    @asynccontextmanager
    async def command(self, spec: ProcessSpec) -> AsyncIterator[Exec | None]:
        """Running; None where it needs a container of its own. Raises as `containers.opened`."""
        async with AsyncExitStack() as stack:
            sidecar = self._taken(spec)
            running = None
            if sidecar is not None:
                running = await self._started(stack, sidecar, spec)
                if running is None:
                    await stack.aclose()
            yield running

    async def _started(self, stack: AsyncExitStack, sidecar: Sidecar, spec: ProcessSpec) -> Exec | None:
        commands: list[Exec] = []
        await stack.enter_async_context(self._leased(sidecar, commands))
        running = await sidecar.start(stack, spec)
        if running is not None:
            commands.append(running)
        elif not sidecar.fit:
            image = spec.image or self._ground.settings.image
            log.info("commands in %s have a container each: what is left by one of them is not seen there", image)
            self._unfit.add(image)
        return running

    @asynccontextmanager
    async def _leased(self, sidecar: Sidecar, commands: list[Exec]) -> AsyncIterator[None]:
        """Within it nobody else has it; afterwards it is as before, or gone."""
        empty = False
        try:
            yield
            empty = bool(commands) and await sidecar.empty(commands[0])
        finally:
            if empty:
                sidecar.free()
            else:
                sidecar.end()
                with anyio.CancelScope(shield=True):
                    await sidecar.gone.wait()

    async def leave(self, workspace_id: str) -> None:
        """End those in which nothing runs, before their place goes."""
        found = [each for each in self._open.values() if each.spec.workspace_id == workspace_id and not each.busy]
        for sidecar in found:
            sidecar.end()
        with anyio.move_on_after(CLOSE_S):
            for sidecar in found:
                await sidecar.gone.wait()

    def _taken(self, spec: ProcessSpec) -> Sidecar | None:
        image = spec.image or self._ground.settings.image
        if self.tasks is None or not shared(spec) or image in self._unfit:
            return None
        view = (spec.workspace_id, image, spec.read_only, spec.snapshots, spec.limits)
        sidecar = self._open.get(view)
        if sidecar is None or sidecar.ending:
            if not self._has_room():
                return None
            sidecar = self._open[view] = Sidecar(self._ground, self._held, spec)
            self.tasks.start_soon(self._own, view, sidecar, name=f"beside {spec.workspace_id}")
        elif sidecar.busy:
            return None
        sidecar.busy = True
        return sidecar

    async def _own(self, view: tuple[object, ...], sidecar: Sidecar) -> None:
        try:
            await sidecar.own()
        finally:
            if self._open.get(view) is sidecar:
                del self._open[view]

    def _has_room(self) -> bool:
        idle = sorted((each for each in self._open.values() if not each.busy), key=lambda each: each.used_s)
        for sidecar in idle[: max(0, len(self._open) + 1 - AT_ONCE)]:
            sidecar.end()
        return sum(not each.ending for each in self._open.values()) < AT_ONCE


def shared(spec: ProcessSpec) -> bool:
    """Does it see what every other command with the same view of the workspace sees, and no network?"""
    pinned = bool(spec.pin_git or spec.protected) and not spec.read_only
    return spec.network == "none" and not (spec.allow or spec.mounts or pinned or spec.nested_sandbox)
