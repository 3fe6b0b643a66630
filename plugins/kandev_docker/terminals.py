"""A container whose command runs on a pseudo terminal of its own, made by the engine."""

from __future__ import annotations

from kandev_docker.engine import Engaged, Engine, Missing
from kandev_docker.process import ContainerProcess
from kandev_host import errors
from kandev_places.terminals import PlaceTerminal
from kandev_sandbox.shell.terminal import hang_up

TERM = "xterm-256color"
_MAX_SIZE = 10_000
_END_OF_INPUT = b"\x04"


class ContainerTerminal(PlaceTerminal[ContainerProcess]):
    """The engine's."""

    def __init__(self, process: ContainerProcess, engine: Engine) -> None:
        super().__init__(process)
        self._engine = engine

    async def close_stdin(self) -> None:
        """Type the end-of-file character; a program that reads keys gets it as one."""
        await self._process.send(_END_OF_INPUT)

    async def resize(self, columns: int, rows: int) -> None:
        check_size(columns, rows)
        await resized(self._engine, self.ref, columns, rows)

    async def terminate(self) -> None:
        await hang_up(lambda: self._process.signal("SIGHUP"), self._process.wait)


def check_size(columns: int, rows: int) -> None:
    """Raises `ValidationFailed`."""
    if not 0 < columns <= _MAX_SIZE or not 0 < rows <= _MAX_SIZE:
        raise errors.ValidationFailed("size", f"A terminal has 1 to {_MAX_SIZE} columns and rows")


async def resized(engine: Engine, name: str, columns: int, rows: int) -> None:
    """Nothing once it has ended. Raises as `Engine.call`."""
    try:
        await engine.call(lambda client: client.resize(name, height=rows, width=columns))
    except (Missing, Engaged):
        return
