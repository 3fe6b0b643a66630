"""What is started in a place, and what runs there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from kandev_host.interfaces.agents import Network
from kandev_host.models import Limits


class Mount(msgspec.Struct, frozen=True):
    """A file or folder of the user's, bound into the place at `target` (`~/…` is the agent's private home)."""

    source: str
    target: str
    read_only: bool = True


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to start, said without host pids or host paths of the workspace.

    `command[0]` is found as the user would find it (in the place where processes run). `cwd` is a path inside;
    the workspace is always `/workspace`, the private home `/home/agent`. `env` is the whole environment beyond
    HOME, PATH, LANG, TERM, TMPDIR. `allow` names loopback services of the host, `127.0.0.1:PORT`, reachable at the
    same address inside; with `network="allowlist"` also names of the outside (`pypi.org`, `*.example.org:443`, `@npm`),
    reachable through the host's proxy. `protected` are paths of the workspace that cannot be changed where they exist;
    `pin_git` is the same for the hooks and the configuration of its repository, off for the host's own git alone, while
    it makes that.
    With `snapshots`, the place's own folder of snapshots, which no agent ever sees, is writable at /snapshots.
    `programs` are further programs that the command will start, found like it and there at their own paths. With
    `read_only` the workspace cannot be written to; a runtime that cannot make it so refuses.
    `image` is for runtimes of containers: the image of this process, where it is not their own default.
    `passing` are those of `allow` that end with this host: whoever adopts the process gives it none of them, for
    somebody else may have their ports by then. One that is `adoptable` may outlive its host, in a runtime that can do
    that; the end of its stdin may then not reach it.
    `labels` come back from `list_owned`.
    """

    workspace_id: str
    command: tuple[str, ...]
    cwd: str = "/workspace"
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    network: Network = "none"
    allow: tuple[str, ...] = ()
    passing: frozenset[str] = frozenset()
    limits: Limits = Limits()
    nested_sandbox: bool = False
    read_only: bool = False
    protected: tuple[str, ...] = ()
    pin_git: bool = True
    snapshots: bool = False
    programs: tuple[str, ...] = ()
    image: str | None = None
    adoptable: bool = False
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)


class Result(msgspec.Struct, frozen=True):
    """A finished short command. Output beyond the bound is dropped, and `truncated` says so.

    `ending` is as of `Process`; `stdout_bytes` and `stderr_bytes` are all that was written, None where nobody counted.
    `unreached` is what the runtime's proxy said of the last connection that it refused or could not make.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False
    ending: str | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    unreached: str | None = None


class Stats(msgspec.Struct, frozen=True):
    """Resource use of a process tree: CPU seconds so far, resident bytes now, processes; None is unknown."""

    cpu_s: float | None = None
    rss_bytes: int | None = None
    pids: int | None = None


class Owned(msgspec.Struct, frozen=True):
    """A process found again: its `ref`, its labels, and whether it still runs."""

    ref: str
    labels: Mapping[str, str]
    running: bool


class Container(msgspec.Struct, frozen=True):
    """What people find a process by in its engine: the `id` and the `name` of its container, and the `image` that was
    asked for."""

    id: str
    name: str
    image: str


def container_of(process: object) -> Container | None:
    """Of a process whose runtime tells it, as `container`; others need not have that."""
    found = getattr(process, "container", None)
    return found if isinstance(found, Container) else None


class Process(Protocol):
    """A running process and all that it started. Its `ref` is opaque and finds it again after a restart."""

    @property
    def ref(self) -> str: ...

    @property
    def adoptable(self) -> bool:
        """May it outlive its host, for the next one to adopt it?"""
        ...

    @property
    def ending(self) -> str | None:
        """After the end, in words: the limit that ended it, or that it met before it failed; else None."""
        ...

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
