"""A persistent shell in a place, as the host knows it, whatever encloses it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from kandev_host import CommandResult, Job, OnOutput, ProcessSpec, errors
from kandev_sandbox import SandboxError, ShellEnded
from kandev_sandbox import Shell as EnclosedShell
from kandev_sandbox.shell import Opener


class PlaceShell:
    """The errors of the sandbox are the host's here."""

    def __init__(self, shell: EnclosedShell) -> None:
        self._shell = shell

    @property
    def ref(self) -> str:
        return self._shell.ref

    @property
    def cwd(self) -> str:
        return self._shell.cwd

    async def run(
        self,
        command: str,
        *,
        timeout_s: float = 60.0,
        max_output_bytes: int = 1 << 20,
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        try:
            done = await self._shell.run(
                command, timeout_s=timeout_s, max_output_bytes=max_output_bytes, on_output=on_output
            )
        except ValueError as error:
            raise errors.ValidationFailed("command", str(error)) from error
        except ShellEnded as error:
            raise errors.Unavailable(error.reason, fix="open another shell") from error
        except OSError as error:
            raise errors.Unavailable(f"The command could not be laid out: {error}", fix="free some space") from error
        return CommandResult(
            exit_code=done.exit_code,
            stdout=done.stdout,
            stderr=done.stderr,
            stdout_bytes=done.stdout_bytes,
            stderr_bytes=done.stderr_bytes,
            truncated=done.truncated,
            timed_out=done.timed_out,
            duration_s=done.duration_s,
            cwd=done.cwd,
        )

    async def jobs(self) -> list[Job]:
        return [
            Job(
                pid=job.pid,
                command=job.command,
                state=job.state,
                age_s=job.age_s,
                cpu_s=job.cpu_s,
                rss_bytes=job.rss_bytes,
            )
            for job in await self._shell.jobs()
        ]

    async def signal(self, number: signal.Signals, pid: int | None = None) -> bool:
        return await self._shell.signal(number, pid)

    async def wait(self) -> None:
        await self._shell.wait()


@asynccontextmanager
async def shell_in(opener: Opener, spec: ProcessSpec) -> AsyncIterator[PlaceShell]:
    """`spec.command` is the shell alone, `/bin/sh` or `/bin/bash`. Raises `Unavailable`, `ValidationFailed`."""
    if len(spec.command) != 1 or not spec.command[0].startswith("/") or not spec.cwd.startswith("/"):
        raise errors.ValidationFailed("command", "a shell is one absolute path, such as /bin/sh, and starts in another")
    async with AsyncExitStack() as stack:
        try:
            shell = EnclosedShell.within(opener, shell=spec.command[0], cwd=spec.cwd)
            await stack.enter_async_context(shell)
        except SandboxError as error:
            raise errors.Unavailable(error.reason, fix=error.fix) from error
        yield PlaceShell(shell)
