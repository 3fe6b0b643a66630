"""A jail: one command, and everything that it starts, in a place of its own."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

from kandev_sandbox import argv, doors, guardian, launch, limits, records
from kandev_sandbox.bounds import Bounds, bounded
from kandev_sandbox.bwrap import Bwrap
from kandev_sandbox.cgroups import Cgroups
from kandev_sandbox.diskwatch import watching_disk
from kandev_sandbox.egress.gate import Gate
from kandev_sandbox.endings import Ending
from kandev_sandbox.errors import SpawnFailed
from kandev_sandbox.groups import Group
from kandev_sandbox.launch import Started, Streams
from kandev_sandbox.policy import WORKSPACE, Policy
from kandev_sandbox.processes import Identity, Usage, children, identify, pid_inside, signal_process
from kandev_sandbox.watchdog import watching

START_TIMEOUT_S = 15.0
KILL_TIMEOUT_S = 5.0
_MONITOR_GRACE_S = 1.0
_COMMAND_WAIT_S = 1.0
_MESSAGE_BYTES = 4096


class Jail:
    """A running jail. `stdin`, `stdout` and `stderr` are None where they are no pipes; `gate` without an allowlist.

    `init` is the first process of its pid namespace as the host sees it: when it dies, everything inside dies.
    Made by `open_jail`.
    """

    def __init__(self, jail_id: str, started: Started, init: Identity, init_descriptor: int, bounds: Bounds) -> None:
        self.id = jail_id
        self.init = init
        self.stdin = started.stdin
        self.stdout = started.stdout
        self.stderr = started.stderr
        self._started = started
        self._init_descriptor = init_descriptor
        self._bounds = bounds
        self._ending: Ending | None = None
        self.gate: Gate | None = None
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

    @property
    def ending(self) -> Ending | None:
        """After the end: the limit that ended it, or that it met before it failed; else None."""
        return self._ending

    @property
    def groups(self) -> Group:
        """Its cgroups; without parts where there are none."""
        return self._bounds.group

    async def usage(self) -> Usage:
        """What all of it uses now; nothing after the end."""
        if not self.init.alive():
            return Usage(0.0, 0, 0)
        return await anyio.to_thread.run_sync(self._bounds.usage, self.init.pid)

    async def wait(self) -> int:
        """Wait for the end of the command, and with it of all that it started. Any number of tasks may wait.

        Answers 0 to 255 as a shell would: 128+n when the command died of signal n. -9 says that the jail was killed.
        """
        async with self._waiting:
            if self._returncode is None:
                code = await _reap(self._started)
                await _gone(self._init_descriptor)
                self._ran = self._killed or launch.command_ran(self._started.status)
                if self._ending is None and code != 0:
                    self._ending = self._bounds.met()
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

    async def kill(self, because: Ending | None = None) -> None:
        """SIGKILL to everything inside; when it returns, nothing of the jail runs. Also after the end.

        `because` is what `ending` will say, if nobody killed it before.
        """
        if self._returncode is not None:
            return
        if not self._killed:
            self._killed = True
            self._ending = because
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
    groups: Cgroups | None = None,
    namespace: int | None = None,
    as_init: bool = False,
) -> AsyncIterator[Jail]:
    """Build a jail, run `command` in it, and end it, with all that it started, when the context is left.

    `command[0]` is a name on the jail's PATH or a path inside. `env` adds to the policy's. `folder` (the host's
    own) is where the jail is recorded for `sweep`; `labels` go into that record. `groups` are the cgroups to use
    (by default what there is for this process). `namespace` is the mount namespace in which root finds the policy's
    folders (a volume's). With `as_init` the command is the first process of the jail's pid namespace: nothing inside
    can kill or stop it, and it must reap. Call it in a thread that lives as long as the jail. Raises `PolicyError`,
    `StagingFailed`, `ForwardFailed`, `JailUnavailable`, and `SpawnFailed` with bwrap's own words when the jail could
    not be built within 15 s.
    """
    owner = owner or records.Owner.here("kandev")
    jail_id = records.new_id()
    async with AsyncExitStack() as stack:
        with _deadline():
            bounds = await bounded(stack, policy.limits, owner, jail_id, groups)
            guardian.ensure(owner, bounds.prefixes)
            stage = await launch.stage(policy, bwrap, namespace)
            started = launch.start(
                policy,
                command,
                bwrap,
                stage=stage,
                env=env or {},
                cwd=cwd,
                streams=streams or Streams(),
                mark=owner.mark(jail_id),
                as_init=as_init,
            )
            stack.push_async_callback(_end_process, started)
            jail = await _built(stack, started, jail_id, policy, bounds)
            listeners = await doors.listen(jail.init.pid, policy)
        if policy.limits.disk_bytes is not None:
            await stack.enter_async_context(watching_disk(jail, policy, policy.limits.disk_bytes, namespace))
        if listeners:
            jail.gate = await stack.enter_async_context(doors.serving(listeners, policy))
        stack.push_async_callback(jail.kill)
        if folder is not None:
            monitor = identify(jail.pid) or jail.init
            path = records.write(folder, owner, jail_id, (monitor, jail.init), labels or {}, bounds.folders)
            stack.callback(path.unlink, missing_ok=True)
        with _deadline():
            await launch.mounted(started, jail.init.pid)
            await _release(started, jail)
        # Not before: until it is built, its root is the host's.
        await stack.enter_async_context(watching(jail, policy.limits, bounds.held, argv.scratch(policy)))
        yield jail


@contextmanager
def _deadline() -> Iterator[None]:
    with anyio.move_on_after(START_TIMEOUT_S) as scope:
        yield
    if scope.cancelled_caught:
        raise SpawnFailed(f"The jail was not built within {START_TIMEOUT_S:.0f} s.")


async def _built(stack: AsyncExitStack, started: Started, jail_id: str, policy: Policy, bounds: Bounds) -> Jail:
    """Wait for the jail's first process, and limit it before the command can run."""
    try:
        pid = await launch.child_pid(started.status)
    finally:
        started.leave_stage()
    init = identify(pid) if pid is not None else None
    if init is None:
        raise SpawnFailed(await _words(started))
    try:
        descriptor = os.pidfd_open(init.pid)
    except ProcessLookupError as error:
        raise SpawnFailed(await _words(started)) from error
    stack.callback(os.close, descriptor)
    jail = Jail(jail_id, started, init, descriptor, bounds)
    try:
        await bounds.join(init.pid)
        wanted = limits.wanted(policy.limits, policy.uid is not None, bounds.held)
        limits.apply(init.pid, wanted, policy.uid)
    except ProcessLookupError as error:
        raise SpawnFailed(await _words(started)) from error
    return jail


async def _release(started: Started, jail: Jail) -> None:
    """Let the command run; if bwrap ends instead, say why."""
    released = False
    ended = os.dup(started.descriptor)  # for one task may wait for a descriptor, and `wait` does if it is killed now

    async def watch(scope: anyio.CancelScope) -> None:
        await anyio.wait_readable(ended)
        scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope)
            released = await launch.release(started.gate)
            group.cancel_scope.cancel()
    finally:
        os.close(ended)
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
    """Whatever happened: bwrap is gone and reaped, and so is its jail; its descriptors are closed."""
    if started.process.returncode is None:
        with anyio.move_on_after(KILL_TIMEOUT_S, shield=True), ExitStack() as held:
            # The group: until its release the jail's first process belongs to it, and nothing else binds it to bwrap.
            os.killpg(started.process.pid, signal.SIGSTOP)
            await _stopped(started)
            # Who is stopped forks no more, and its children are known for as long as it is there.
            inits = [pidfd for pidfd in map(_pidfd, children(started.process.pid)) if pidfd is not None]
            for pidfd in inits:
                held.callback(os.close, pidfd)
            os.killpg(started.process.pid, signal.SIGKILL)
            await _reap(started)
            for pidfd in inits:
                await _gone(pidfd)
    started.close()


async def _stopped(started: Started) -> None:
    """Or ended; or neither, within a second."""
    either = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
    with anyio.move_on_after(_MONITOR_GRACE_S):
        while os.waitid(os.P_PIDFD, started.descriptor, either) is None:  # noqa: ASYNC110, ASYNC222 (WNOHANG)
            await anyio.sleep(0.001)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


async def _reap(started: Started) -> int:
    if started.process.returncode is None:
        await anyio.wait_readable(started.descriptor)
    return started.process.wait()


async def _gone(init_descriptor: int) -> None:
    """Wait for the end of the jail's first process, which comes after that of all others in its pid namespace."""
    look = select.poll()
    look.register(init_descriptor, select.POLLIN)
    if not look.poll(0):  # as a rule it has ended before bwrap
        await anyio.wait_readable(init_descriptor)
    with suppress(ChildProcessError):  # as a rule it is somebody else's to reap
        # Its parent bwrap is gone, so it falls to us where we are pid 1 of a container, or a subreaper.
        os.waitid(os.P_PIDFD, init_descriptor, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 (WNOHANG)
