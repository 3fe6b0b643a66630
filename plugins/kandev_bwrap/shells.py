"""Shells and terminals of a workspace, each in a jail of its own, opened and recorded as every other process."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import msgspec

from kandev_bwrap.process import JailProcess
from kandev_host import ProcessSpec, errors
from kandev_places.shells import PlaceShell, shell_in
from kandev_places.terminals import PlaceTerminal
from kandev_sandbox import Jail, Policy, PolicyError, Streams
from kandev_sandbox.shell import Change, Terminal
from kandev_sandbox.shell import open_terminal as jailed_terminal
from kandev_sandbox.shell.terminal import Onto, hang_up


def _same(policy: Policy, argv: Sequence[str]) -> tuple[Policy, Sequence[str]]:
    return policy, argv


class Opening(msgspec.Struct, frozen=True):
    """What differs from a plain process: the policy and the command, its streams, where it starts, is it the first?"""

    change: Onto = _same
    streams: Streams = Streams()
    cwd: str | None = None
    as_init: bool = False


PLAIN = Opening()
Spawn = Callable[[ProcessSpec, Opening], AbstractAsyncContextManager[JailProcess]]


class JailTerminal(PlaceTerminal[JailProcess]):
    """One that the host itself made."""

    def __init__(self, process: JailProcess, terminal: Terminal) -> None:
        super().__init__(process)
        self._terminal = terminal

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._terminal.receive(max_bytes)

    async def send(self, data: bytes) -> None:
        await self._terminal.send(data)

    async def close_stdin(self) -> None:
        await self._terminal.end_of_input()

    async def resize(self, columns: int, rows: int) -> None:
        try:
            self._terminal.resize(columns, rows)
        except PolicyError as error:
            raise errors.ValidationFailed("size", error.reason) from error

    async def terminate(self) -> None:
        jail = self._process.jail
        await hang_up(lambda: jail.signal(signal.SIGHUP), jail.wait)


def open_shell(spawn: Spawn, spec: ProcessSpec) -> AbstractAsyncContextManager[PlaceShell]:
    """Raises as `shell_in`."""

    @asynccontextmanager
    async def opener(change: Change) -> AsyncIterator[Jail]:
        opening = Opening(change=lambda policy, argv: change(policy), cwd="/", as_init=True)
        async with spawn(spec, opening) as process:
            yield process.jail

    return shell_in(opener, spec)


@asynccontextmanager
async def open_terminal(spawn: Spawn, spec: ProcessSpec, columns: int, rows: int) -> AsyncIterator[JailTerminal]:
    """Raises `Unavailable`, and `ValidationFailed` for what is no size."""
    opened: list[JailProcess] = []

    @asynccontextmanager
    async def opener(onto: Onto, streams: Streams) -> AsyncIterator[Jail]:
        async with spawn(spec, Opening(change=onto, streams=streams)) as process:
            opened.append(process)
            yield process.jail

    async with AsyncExitStack() as stack:
        try:
            _, terminal = await stack.enter_async_context(jailed_terminal(opener, columns, rows))
        except PolicyError as error:
            raise errors.ValidationFailed("size", error.reason) from error
        yield JailTerminal(opened[0], terminal)
