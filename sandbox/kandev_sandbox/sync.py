"""The shell for programs without an event loop: `with Shell(folder) as sh: result = sh.run("make test")`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kandev_sandbox import shell as asynchronous
from kandev_sandbox.bwrap import Bwrap
from kandev_sandbox.errors import ShellEnded
from kandev_sandbox.policy import WORKSPACE, Network, Policy
from kandev_sandbox.shell import Job, ShellResult, Stream

P = ParamSpec("P")
T = TypeVar("T")
OnOutput = Callable[[Stream, bytes], None]
_END_S = 30.0


class Shell:
    """As `kandev_sandbox.Shell`, with an event loop in a thread of its own that lives as long as the context.

    `run` may be called from several threads; one command runs at a time. `jobs` and `signal` answer meanwhile.
    """

    def __init__(
        self,
        workspace: Path | str,
        *,
        network: Network = "none",
        allow: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        read_only: bool = False,
        own: bool = False,
        shell: str = "/bin/sh",
        cwd: str = WORKSPACE,
        bwrap: Bwrap | None = None,
    ) -> None:
        """Arguments and errors are those of `kandev_sandbox.Shell`."""
        self._make: Callable[[], asynchronous.Shell] = lambda: asynchronous.Shell(
            workspace,
            network=network,
            allow=allow,
            env=env,
            read_only=read_only,
            own=own,
            shell=shell,
            cwd=cwd,
            bwrap=bwrap,
        )
        self._stack = ExitStack()
        self._opened: tuple[BlockingPortal, asynchronous.Shell] | None = None

    @classmethod
    def under(cls, policy: Policy, *, shell: str = "/bin/sh", cwd: str = WORKSPACE, bwrap: Bwrap | None = None) -> Self:
        """A shell whose jail has this policy."""
        made = cls(policy.workspace, shell=shell, cwd=cwd, bwrap=bwrap)
        made._make = lambda: asynchronous.Shell.under(policy, shell=shell, cwd=cwd, bwrap=bwrap)
        return made

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            shell = portal.call(self._made)
            stack.enter_context(portal.wrap_async_context_manager(shell))
            self._opened = (portal, shell)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = None
        self._stack.close()

    @property
    def cwd(self) -> str:
        """Where the next command starts."""
        return self.inside[1].cwd

    @property
    def env(self) -> dict[str, str]:
        """The exported variables that the next command starts with."""
        return self.inside[1].env

    def run(
        self,
        command: str,
        *,
        timeout_s: float = 60.0,
        max_output_bytes: int = 1 << 20,
        on_output: OnOutput | None = None,
    ) -> ShellResult:
        """Run a script to its end. `on_output` is called in another thread, chunk by chunk, never at the same time.

        A KeyboardInterrupt kills what the command started and keeps the shell. Raises as `kandev_sandbox.Shell.run`.
        """
        shell = self.inside[1]

        async def pass_on(stream: Stream, chunk: bytes) -> None:
            if on_output is not None:
                await to_thread.run_sync(on_output, stream, chunk)

        async def run() -> ShellResult:
            return await shell.run(
                command,
                timeout_s=timeout_s,
                max_output_bytes=max_output_bytes,
                on_output=pass_on if on_output is not None else None,
            )

        return self._call(run)

    def jobs(self) -> list[Job]:
        """What runs in the jail: of the running command, and what earlier ones left in the background. At most 1000."""
        return self._call(self.inside[1].jobs)

    def signal(self, number: signal.Signals, pid: int | None = None) -> bool:
        """To the job with this pid and what it started, or (None) to the running command. False if there is none."""
        return self._call(self.inside[1].signal, number, pid)

    def kill(self) -> None:
        """SIGKILL to everything in the jail, and with it the end of the shell."""
        self._call(self.inside[1].kill)

    @property
    def inside(self) -> tuple[BlockingPortal, asynchronous.Shell]:
        """The way into its thread, and the shell there. Raises `ShellEnded` outside of the context."""
        if self._opened is None:
            raise ShellEnded("The shell is not open.", "use it in `with`")
        return self._opened

    async def _made(self) -> asynchronous.Shell:
        return self._make()

    def _call(self, function: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        portal, _ = self.inside
        ended = threading.Event()
        scopes: list[anyio.CancelScope] = []

        async def call() -> T:
            try:
                with anyio.CancelScope() as scope:
                    scopes.append(scope)
                    return await function(*arguments, **named)
                raise ShellEnded("The call was interrupted.")
            finally:
                ended.set()

        async def cancel() -> bool:
            """True if it has begun, as it has by now if it ever will: the loop takes them in order."""
            for scope in scopes:
                scope.cancel()
            return bool(scopes)

        try:
            return portal.start_task_soon(call).result()
        except CancelledError as error:
            raise ShellEnded("The shell was closed meanwhile.") from error
        except BaseException:
            # Interrupted, as a rule by Ctrl-C, wherever this thread was just then: the command is ended first.
            if not ended.is_set() and portal.call(cancel):
                ended.wait(_END_S)
            raise
