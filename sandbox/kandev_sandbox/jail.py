"""A jail: one command, and everything that it starts, in a place of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

from kandev_sandbox import forward, guardian, launch, limits, mountpoints, records
from kandev_sandbox.bwrap import Bwrap
from kandev_sandbox.errors import SpawnFailed
from kandev_sandbox.launch import Started, Streams
from kandev_sandbox.policy import WORKSPACE, Policy
from kandev_sandbox.processes import Identity, children, identify, pid_inside, signal_process

START_TIMEOUT_S = 15.0
KILL_TIMEOUT_S = 5.0
_MONITOR_GRACE_S = 1.0
_COMMAND_WAIT_S = 1.0
_MESSAGE_BYTES = 4096


class Jail:
    """A running jail. `stdin`, `stdout` and `stderr` are None where they are no pipes.

    `init` is the first process of its pid namespace as the host sees it: when it dies, everything inside dies.
    Made by `open_jail`.
    """

    def __init__(self, jail_id: str, started: Started, init: Identity, init_descriptor: int) -> None:
        self.id = jail_id
        self.init = init
        self.stdin = started.stdin
        self.stdout = started.stdout
        self.stderr = started.stderr
        self._started = started
        self._init_descriptor = init_descriptor
        self._waiting = anyio.Lock()
        self._returncode: int | None = None
        self._killed = False
        self._ran = True

    @property
    def pid(self) -> int:
        """The host pid of bwrap, the jail's parent."""
        return self._started.process.pid

    @property
    def returncode(self) -> int | None:
        """As `wait` answers it; None while the jail runs or nobody has waited."""
        return self._returncode

    @property
    def ran(self) -> bool:
        """False, after the end, if the command could not be executed (bwrap says on stderr why)."""
        return self._ran

    async def wait(self) -> int:
        """Wait for the end of the command, and with it of all that it started. Any number of tasks may wait.

        Answers 0 to 255 as a shell would: 128+n when the command died of signal n. -9 says that the jail was killed.
        """
        async with self._waiting:
            if self._returncode is None:
                code = await _reap(self._started)
                await _gone(self._init_descriptor)
                self._ran = self._killed or await launch.command_ran(self._started.status)
                self._returncode = -signal.SIGKILL if self._killed else code
        return self._returncode

    async def terminate(self) -> None:
        """SIGTERM to the command inside (not to bwrap, which would take the jail down at once)."""
        await self.signal(signal.SIGTERM)

    async def signal(self, number: signal.Signals) -> None:
        """Send the command a signal; nothing if it has ended. Kills the jail if no command appears within a second."""
        with anyio.move_on_after(_COMMAND_WAIT_S):
            while self._started.process.returncode is None and self.init.alive():
                command = self._command()
                if command is not None:
                    signal_process(command, number)
                    return
                await anyio.sleep(0.002)  # between the release and the fork of the command, microseconds
        if self.init.alive():
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL to everything inside; when it returns, nothing of the jail runs. Also after the end."""
        if self._returncode is None:
            self._killed = True
        with anyio.move_on_after(KILL_TIMEOUT_S, shield=True):
            signal_process(self.init, signal.SIGKILL)
            # bwrap then reaps its child and ends; only one that cannot (stopped, say) is killed itself.
            with anyio.move_on_after(_MONITOR_GRACE_S):
                await self.wait()
            if self._returncode is None:
                self._started.process.kill()
            await self.wait()

    def _command(self) -> Identity | None:
        for pid in children(self.init.pid):
            if pid_inside(pid) == 2:
                return identify(pid)
        return None


@asynccontextmanager
async def open_jail(
    policy: Policy,
    command: Sequence[str],
    *,
    bwrap: Bwrap,
    env: Mapping[str, str] | None = None,
    cwd: str = WORKSPACE,
    streams: Streams | None = None,
    owner: records.Owner | None = None,
    folder: Path | None = None,
    labels: Mapping[str, str] | None = None,
) -> AsyncIterator[Jail]:
    """Build a jail, run `command` in it, and end it, with all that it started, when the context is left.

    `command[0]` is a name on the jail's PATH or a path inside. `env` adds to the policy's. `folder` (the host's
    own) is where the jail is recorded for `records.sweep`; `labels` go into that record. Call it in the event
    loop's main thread. Raises `PolicyError`, `StagingFailed`, `ForwardFailed`, `JailUnavailable`, and
    `SpawnFailed` with bwrap's own words when the jail could not be built within 15 s.
    """
    owner = owner or records.Owner.here("kandev")
    guardian.ensure(owner)
    jail_id = records.new_id()
    async with AsyncExitStack() as stack:
        with _deadline():
            await anyio.to_thread.run_sync(mountpoints.make, policy)
            stage = await launch.stage(policy, bwrap)
            started = launch.start(
                policy,
                command,
                bwrap,
                stage=stage,
                env=env or {},
                cwd=cwd,
                streams=streams or Streams(),
                mark=owner.mark(jail_id),
            )
            stack.push_async_callback(_end_process, started)
            jail = await _built(stack, started, jail_id, policy)
            listeners = await forward.listen_inside(jail.init.pid, policy.ports) if policy.ports else []
        if listeners:
            await stack.enter_async_context(forward.forwarding(listeners))
        stack.push_async_callback(jail.kill)
        if folder is not None:
            monitor = identify(jail.pid) or jail.init
            path = records.write(folder, owner, jail_id, (monitor, jail.init), labels or {})
            stack.callback(path.unlink, missing_ok=True)
        with _deadline():
            await _release(started, jail)
        yield jail


@contextmanager
def _deadline() -> Iterator[None]:
    with anyio.move_on_after(START_TIMEOUT_S) as scope:
        yield
    if scope.cancelled_caught:
        raise SpawnFailed(f"The jail was not built within {START_TIMEOUT_S:.0f} s.")


async def _built(stack: AsyncExitStack, started: Started, jail_id: str, policy: Policy) -> Jail:
    """Wait for the jail's first process, and limit it before the command can run."""
    try:
        pid = await launch.child_pid(started.status)
    finally:
        started.leave_stage()
    init = identify(pid) if pid is not None else None
    if init is None:
        raise SpawnFailed(await _words(started))
    descriptor = os.pidfd_open(init.pid)
    stack.callback(os.close, descriptor)
    jail = Jail(jail_id, started, init, descriptor)
    if limits.from_outside():
        try:
            limits.apply(init.pid, limits.wanted(policy.limits, own_uid=policy.uid is not None))
        except ProcessLookupError as error:
            raise SpawnFailed(await _words(started)) from error
    return jail


async def _release(started: Started, jail: Jail) -> None:
    """Let the command run; if bwrap ends instead, say why."""
    released = False

    async def watch(scope: anyio.CancelScope) -> None:
        await anyio.wait_readable(started.descriptor)
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        released = await launch.release(started.gate)
        group.cancel_scope.cancel()
    if not released:
        await jail.wait()
        if not jail.ran:
            raise SpawnFailed(await _words(started))


async def _words(started: Started) -> str:
    """What bwrap wrote on stderr, if that is a pipe."""
    text = b""
    while started.stderr is not None and len(text) < _MESSAGE_BYTES:
        try:
            text += await started.stderr.receive(_MESSAGE_BYTES)
        except anyio.EndOfStream:
            break
    return f"The jail was not built: {text.decode(errors='replace').strip() or 'bwrap ended'}."


async def _end_process(started: Started) -> None:
    """Whatever happened: bwrap is gone and reaped, and its descriptors are closed."""
    if started.process.returncode is None:
        # The group: until its release the jail's first process belongs to it, and nothing else binds it to bwrap yet.
        os.killpg(started.process.pid, signal.SIGKILL)
        with anyio.move_on_after(KILL_TIMEOUT_S, shield=True):
            await _reap(started)
    started.close()


async def _reap(started: Started) -> int:
    if started.process.returncode is None:
        await anyio.wait_readable(started.descriptor)
    return started.process.wait()


async def _gone(init_descriptor: int) -> None:
    """Wait for the end of the jail's first process, which comes after that of all others in its pid namespace."""
    await anyio.wait_readable(init_descriptor)
    with suppress(ChildProcessError):  # as a rule it is somebody else's to reap
        # Its parent bwrap is gone, so it falls to us where we are pid 1 of a container, or a subreaper.
        os.waitid(os.P_PIDFD, init_descriptor, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 (WNOHANG)
