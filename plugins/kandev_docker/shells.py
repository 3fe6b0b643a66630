"""Shells in containers: the supervisor of a shell is the first process of a container of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio
import msgspec
from msgspec.structs import replace

from kandev_docker.process import ContainerProcess
from kandev_host import Mount, ProcessSpec, errors
from kandev_places.places import Place
from kandev_places.shells import PlaceShell, shell_in
from kandev_sandbox import Policy
from kandev_sandbox.beside import beside
from kandev_sandbox.pipes import PipeReader, PipeWriter, pipe
from kandev_sandbox.processes import Identity
from kandev_sandbox.shell import Change, Enclosure

# A container whose first process is what the change answers (`laid_out`).
Spawn = Callable[[Change], AbstractAsyncContextManager[ContainerProcess]]
_CHUNK_BYTES = 65536


class Enclosed(msgspec.Struct, frozen=True):
    """A container as what encloses a shell: its streams are pipes here."""

    process: ContainerProcess
    init: Identity
    stdin: PipeWriter
    stdout: PipeReader
    stderr: PipeReader

    @property
    def id(self) -> str:
        return self.process.ref

    async def wait(self) -> int:
        return await self.process.wait()

    async def kill(self) -> None:
        await self.process.kill()


def open_shell(spawn: Spawn, spec: ProcessSpec) -> AbstractAsyncContextManager[PlaceShell]:
    """Raises as `shell_in`, and `Unavailable` where the processes of containers are not seen."""

    @asynccontextmanager
    async def opener(change: Change) -> AsyncIterator[Enclosure]:
        async with spawn(change) as process, _enclosed(process) as enclosed:
            yield enclosed

    return shell_in(opener, spec)


def laid_out(change: Change, spec: ProcessSpec, place: Place, path: str | None) -> tuple[ProcessSpec, Mount]:
    """What to run in place of `spec`, and the folder it needs to see. `path` is the PATH of the image."""
    policy = Policy(
        workspace=place.workspace,
        network=spec.network,
        allow=spec.allow if spec.network != "host" else (),
        env={**({"PATH": path} if path else {}), **spec.env},
        uid=place.uid,
    )
    changed, command = change(policy)
    control = changed.binds[-1]
    shown = Mount(os.path.realpath(control.source), control.inside, read_only=True)
    return replace(spec, command=tuple(command), cwd="/"), shown


@asynccontextmanager
async def _enclosed(process: ContainerProcess) -> AsyncIterator[Enclosed]:
    if process.init is None:
        raise errors.Unavailable(
            "The processes of this engine's containers are not seen from here, so that no shell could end a command.",
            fix="use an engine of this machine, or the runtime bwrap",
        )
    async with AsyncExitStack() as stack:
        requests, stdin = _ends(stack)
        stdout, answers = _ends(stack)
        stderr, words = _ends(stack)
        tasks = await stack.enter_async_context(beside())
        tasks.start_soon(_forward, requests, process)
        tasks.start_soon(_fill, process.receive, answers)
        tasks.start_soon(_fill, process.receive_stderr, words)
        yield Enclosed(process, process.init, stdin, stdout, stderr)


def _ends(stack: AsyncExitStack) -> tuple[PipeReader, PipeWriter]:
    reader, writer = pipe()
    ends = PipeReader(reader), PipeWriter(writer)
    for end in ends:
        stack.callback(end.close)
    return ends


async def _forward(requests: PipeReader, process: ContainerProcess) -> None:
    try:
        async for chunk in requests:
            await process.send(chunk)
    except BrokenPipeError:
        requests.close()  # the container has ended: whoever writes on hears of it


async def _fill(receive: Callable[[int], Awaitable[bytes]], pipe: PipeWriter) -> None:
    try:
        while chunk := await receive(_CHUNK_BYTES):
            await pipe.send(chunk)
    except anyio.BrokenResourceError:
        return  # nobody reads it any more
    finally:
        pipe.close()
