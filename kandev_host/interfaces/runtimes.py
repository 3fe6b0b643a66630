"""Places where processes run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from kandev_host.interfaces.agents import Network
from kandev_host.interfaces.providers import Availability
from kandev_host.models import Limits


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the user's, bound into the place at `target` (`~/…` is the agent's private home)."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to start, said without host pids or host paths of the workspace.

    `command[0]` is found as the user would find it (in the place where processes run). `cwd` is a path inside;
    the workspace is always `/workspace`, the private home `/home/agent`. `env` is the whole environment beyond
    HOME, PATH, LANG, TERM, TMPDIR. `allow` names loopback services of the host, `127.0.0.1:PORT`, reachable at the
    same address inside. `labels` come back from `list_owned`.
    """

    workspace_id: str
    command: tuple[str, ...]
    cwd: str = "/workspace"
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    network: Network = "none"
    allow: tuple[str, ...] = ()
    limits: Limits = Limits()
    nested_sandbox: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """A finished short command. Output beyond the bound is dropped, and `truncated` says so."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """Resource use of a process tree: CPU seconds so far, resident bytes now, processes; None is unknown."""

    cpu_s: float | None = None
    rss_bytes: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """A process found again: its `ref`, its labels, and whether it still runs."""

    ref: str
    labels: Mapping[str, str]
    running: bool


class Process(Protocol):
    """A running process and all that it started. Its `ref` is opaque and finds it again after a restart."""

    @property
    def ref(self) -> str: ...

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes of stdout, waiting for some; b"" once it has ended. Not reading slows the process."""
        ...

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        """The next bytes of stderr; b"" once it has ended."""
        ...

    async def send(self, data: bytes) -> None:
        """Write to stdin, waiting while the pipe is full. Raises `BrokenPipeError` when nobody reads any more."""
        ...

    async def close_stdin(self) -> None: ...

    async def wait(self) -> int:
        """The exit code: 0 to 255, or minus the signal's number. May be awaited by several tasks."""
        ...

    async def terminate(self) -> None:
        """SIGTERM to the command; nothing if it has ended."""
        ...

    async def kill(self) -> None:
        """SIGKILL to everything in the place; afterwards nothing of it runs."""
        ...

    async def stats(self) -> Stats: ...


class Runtime(Protocol):
    """A kind of place where processes run. Leaving the context of `spawn` kills what still runs and reaps it."""

    @property
    def name(self) -> str: ...

    async def probe(self) -> Availability:
        """Really try the runtime once; `details` may hold its version and what is only partial."""
        ...

    async def locate(self, command: str) -> Availability:
        """Can `command` be started here?"""
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

    async def list_owned(self) -> list[Owned]:
        """Every process that this host, or a dead one with the same data folder, has started and that still runs."""
        ...

    async def adopt(self, ref: str, position: int) -> Process | None:
        """Attach again to a process that outlived its host, from this byte of stdout on; None where that cannot be."""
        ...

    async def reap(self, ref: str) -> bool:
        """Kill a process of a dead host, found by `list_owned`. True if something was killed."""
        ...
