"""Places where processes run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from kandev_host.interfaces.files import FileContent, FileEntry, PlaceUse
from kandev_host.interfaces.network import NetworkDecision
from kandev_host.interfaces.processes import Owned, Process, ProcessSpec, Result
from kandev_host.interfaces.providers import Availability
from kandev_host.interfaces.shells import Shell, Terminal


class Runtime(Protocol):
    """A kind of place where processes run. Leaving the context of `spawn` kills what still runs and reaps it."""

    @property
    def name(self) -> str: ...

    @property
    def confines(self) -> bool:
        """Does it hold processes in a jail? Permissions that rely on one are not given elsewhere."""
        ...

    async def probe(self) -> Availability:
        """Really try the runtime once; `details` may hold its version and what is only partial."""
        ...

    async def locate(self, command: str, image: str | None = None) -> Availability:
        """Can `command` be started here; of a runtime of containers, in this image or its default one?"""
        ...

    async def prepare(self, workspace_id: str) -> None:
        """Make the place's folders (workspace, home, tmp) if they are not there yet."""
        ...

    async def remove(self, workspace_id: str) -> None:
        """Delete the place's folders and all that is in them. Nothing if there are none."""
        ...

    async def write_home(self, workspace_id: str, path: str, content: bytes) -> None:
        """Write a file into the private home unless it exists; `path` is relative to it and never follows links."""
        ...

    def spawn(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Process]:
        """Start it. Raises `Unavailable` (with the fix) when the runtime or the command cannot be used."""
        ...

    async def run(
        self, spec: ProcessSpec, *, stdin: bytes = b"", timeout_s: float = 60.0, max_output_bytes: int = 8 << 20
    ) -> Result:
        """Run a short command to its end. Raises `TimedOut` after `timeout_s`, having killed it."""
        ...

    def open_shell(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Shell]:
        """A persistent shell; `spec.command` is `("/bin/sh",)`. Raises `Unavailable` where there is none."""
        ...

    def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> AbstractAsyncContextManager[Terminal]:
        """Start it on a pseudo terminal of its own. Raises as `spawn`."""
        ...

    async def list_files(
        self, workspace_id: str, path: str, depth: int, limit: int, after: str = ""
    ) -> list[FileEntry]:
        """What is below `path` (relative to the workspace), at most `depth` levels and `limit` entries.

        A folder comes before what is in it, names are in order, and the listing goes on behind the entry `after`. A
        name that is not UTF-8 is as `os.fsdecode` makes it, in paths that are given as well. Raises `NotFound`,
        `TimedOut`, and `ValidationFailed` for a path that leads through a link or out of the workspace.
        """
        ...

    async def read_file(self, workspace_id: str, path: str, offset: int, limit_bytes: int) -> FileContent:
        """A part of a regular file. Raises as `list_files`, and `ValidationFailed` for what is no regular file."""
        ...

    async def use(self, workspace_id: str) -> PlaceUse:
        """What the place takes of the disk. Raises `NotFound`."""
        ...

    def decisions(self) -> AsyncIterator[NetworkDecision]:
        """What the proxy of `network="allowlist"` decides from now on, for one reader. Bounded: the oldest go."""
        ...

    def check_allow(self, entries: Sequence[str]) -> None:
        """Raises `ValidationFailed` for an entry that `ProcessSpec.allow` cannot have."""
        ...

    def allow(self, labels: Mapping[str, str], entries: Sequence[str]) -> None:
        """Processes with all these labels and an allowlist, also on their way up, may reach these names as well."""
        ...

    async def list_owned(self) -> list[Owned]:
        """Every process that this host, or a dead one with the same data folder, has started and that still runs."""
        ...

    async def adopt(self, ref: str, position: int) -> Process | None:
        """Attach again to a process that outlived its host, from this byte of stdout on; None where that cannot be."""
        ...

    async def reap(self, ref: str) -> bool:
        """Kill a process of a dead host, found by `list_owned`. True if something was killed."""
        ...
