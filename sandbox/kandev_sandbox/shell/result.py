"""What a command of a shell ended with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

Stream = Literal["stdout", "stderr"]
OnOutput = Callable[[Stream, bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellResult:
    """A command that has ended.

    `exit_code` is 128+n for one that died of signal n. `stdout` and `stderr` are the head and the tail of what it
    wrote; `stdout_bytes` and `stderr_bytes` count all of it, and `dropped_bytes` what is missing in the middle. `cwd`
    is where the shell is now. `timed_out`: everything that the command had started was killed; the shell goes on.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    stderr_bytes: int
    timed_out: bool
    duration_s: float
    cwd: str

    @property
    def dropped_bytes(self) -> int:
        return self.stdout_bytes + self.stderr_bytes - len(self.stdout) - len(self.stderr)

    @property
    def truncated(self) -> bool:
        return self.dropped_bytes > 0
