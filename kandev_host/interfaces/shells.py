"""Shells and terminals in a workspace's jail, for people and for audited commands."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

import msgspec

from kandev_host.interfaces.processes import Process

Stream = Literal["stdout", "stderr"]
OnOutput = Callable[[Stream, bytes], Awaitable[None]]


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """A command that a shell ran to its end.

    `exit_code` is 128+n for one that died of signal n. `stdout` and `stderr` are the head and the tail of what it
    wrote, `stdout_bytes` and `stderr_bytes` all that it wrote; `truncated` says that the middle was dropped. `cwd` is
    where the shell is now. `timed_out`: everything that the command had started was killed; the shell goes on.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    timed_out: bool
    duration_s: float
    cwd: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A process that a shell's commands started and that still runs. `pid` is its pid inside."""

    pid: int
    command: str
    state: Literal["running", "background"]
    age_s: float
    cpu_s: float | None = None
    rss_bytes: int | None = None


class Shell(Protocol):
    """A persistent `/bin/sh` in a jail: `cd`, exports and umask carry over from command to command.

    Commands run one after the other; a second `run` waits for the first. Leaving its context kills what still runs.
    """

    @property
    def ref(self) -> str: ...

    @property
    def cwd(self) -> str: ...

    async def run(
        self,
        command: str,
        *,
        timeout_s: float = 60.0,
        max_output_bytes: int = 1 << 20,
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        """Run a script to its end; `on_output` gets every byte as it comes, and slows the command while it waits.

        Cancelling it kills what the command started and keeps the shell. Raises `Unavailable` when the jail is gone.
        """
        ...

    async def jobs(self) -> list[Job]:
        """The running command and what earlier ones left in the background."""
        ...

    async def signal(self, number: signal.Signals, pid: int | None = None) -> bool:
        """To one job and what it started, or (None) to the running command. False if there is none."""
        ...

    async def wait(self) -> None:
        """Until the jail is gone, whoever ended it."""
        ...


class Terminal(Process, Protocol):
    """A process on a pseudo terminal of its own: `receive` reads what it shows, `send` types; stderr is part of it."""

    async def resize(self, columns: int, rows: int) -> None:
        """Its new size; the foreground job hears of it (SIGWINCH)."""
        ...
