"""What a shell needs of the place that it runs in."""

from __future__ import annotations

from typing import Protocol

from kandev_sandbox.pipes import PipeReader, PipeWriter
from kandev_sandbox.processes import Identity


class Enclosure(Protocol):
    """Something with a pid namespace of its own, whose first process is the shell's supervisor: a jail, a container."""

    @property
    def id(self) -> str: ...

    @property
    def init(self) -> Identity:
        """That first process as this machine sees it; with it everything inside ends."""
        ...

    @property
    def stdin(self) -> PipeWriter | None: ...

    @property
    def stdout(self) -> PipeReader | None: ...

    @property
    def stderr(self) -> PipeReader | None: ...

    async def wait(self) -> int:
        """Until all of it is gone."""
        ...

    async def kill(self) -> None:
        """End all of it."""
        ...
