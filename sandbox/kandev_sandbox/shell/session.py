"""A persistent shell in a jail: commands one after the other, each ended without ending the shell."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from kandev_sandbox import argv, records
from kandev_sandbox.bwrap import Bwrap
from kandev_sandbox.doctor import examine
from kandev_sandbox.errors import PolicyError, ShellEnded
from kandev_sandbox.jail import Jail, open_jail
from kandev_sandbox.policy import WORKSPACE, Bind, Network, Policy
from kandev_sandbox.shell import control, jobs, scripts
from kandev_sandbox.shell.control import Control
from kandev_sandbox.shell.enclosure import Enclosure
from kandev_sandbox.shell.exchange import Exchange
from kandev_sandbox.shell.jobs import Before, Job
from kandev_sandbox.shell.result import OnOutput, ShellResult
from kandev_sandbox.shell.state import State, is_name, told
from kandev_sandbox.shell.supervisor import NOT_STARTED, Supervisor, supervised
from kandev_sandbox.uids import owner_of

MAX_COMMAND_BYTES = 1 << 20


# What a shell makes of the policy of its jail: another one, and the command to run.
Change = Callable[[Policy], tuple[Policy, Sequence[str]]]
Opener = Callable[[Change], AbstractAsyncContextManager[Enclosure]]


class Shell:
    """A persistent `/bin/sh` in a jail: `async with Shell(folder) as sh: result = await sh.run("make test")`.

    Working directory, exported variables, umask and `cd -` carry over from command to command. Functions, aliases,
    options, traps and variables that are not exported do not: each command has a fresh shell, with /dev/null as stdin.
    Commands run one after the other. Leaving the context kills what still runs. For one event loop; entered once.
    """

    _opener: Opener
    _shell: str
    _state: State
    _told: bytes
    _lock: anyio.Lock
    _current: Exchange | None
    _supervisor: Supervisor | None
    _opened: AbstractAsyncContextManager[Supervisor]
    _control: Control | None

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
        """`workspace` is at /workspace inside; home and /tmp are scratch, gone with the shell.

        As root the jail runs as the owner of the folder; `own` gives one of root's to a uid of its own (chown -R).
        For anything else that a jail can be, make a `Policy` and use `Shell.under`. Raises `PolicyError`; entering
        the context raises what `open_jail` raises.
        """
        folder = Path(os.path.realpath(workspace))
        policy = Policy(
            workspace=folder,
            network=network,
            allow=allow,
            env=env or {},
            workspace_read_only=read_only,
        )
        if os.geteuid() == 0:  # last, for `own` changes the folder
            policy = replace(policy, uid=owner_of(folder, own))
        self._begin(_opener(policy, bwrap, None, None, None), shell, cwd)

    @classmethod
    def under(
        cls,
        policy: Policy,
        *,
        shell: str = "/bin/sh",
        cwd: str = WORKSPACE,
        bwrap: Bwrap | None = None,
        owner: records.Owner | None = None,
        folder: Path | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Self:
        """A shell whose jail has this policy; the other arguments are those of `open_jail`."""
        return cls.within(_opener(policy, bwrap, owner, folder, labels), shell=shell, cwd=cwd)

    @classmethod
    def within(cls, opener: Opener, *, shell: str = "/bin/sh", cwd: str = WORKSPACE) -> Self:
        """A shell whose jail the caller opens: with three pipes, `as_init` and `cwd="/"`, and what `Change` answers.

        A container will do as well (`Enclosure`): what counts in the policy then is its environment and its uid, and
        the last bind of the answer is the folder that must be seen inside.
        """
        made = cls.__new__(cls)
        made._begin(opener, shell, cwd)
        return made

    async def __aenter__(self) -> Self:
        self._supervisor = await self._opened.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._opened.__aexit__(kind, error, trace)

    @property
    def ref(self) -> str:
        """The id of its jail."""
        return self.jail.id

    @property
    def jail(self) -> Enclosure:
        """Its jail, or whatever else it was opened in."""
        if self._supervisor is None:
            raise _not_open()
        return self._supervisor.jail

    @property
    def cwd(self) -> str:
        """Where the next command starts."""
        return self._state.cwd.decode(errors="surrogateescape")

    @property
    def env(self) -> dict[str, str]:
        """The exported variables that the next command starts with."""
        pairs = self._state.env.items()
        return {name.decode(): value.decode(errors="surrogateescape") for name, value in pairs}

    async def run(
        self,
        command: str,
        *,
        timeout_s: float = 60.0,
        max_output_bytes: int = 1 << 20,
        on_output: OnOutput | None = None,
    ) -> ShellResult:
        """Run a script to its end; a second call waits for the first.

        `on_output` gets every byte as it comes, and slows the command while it waits. Of each output at most
        `max_output_bytes` are kept, its head and its tail. After `timeout_s` everything that the command started is
        killed, and the result says so; cancelling does the same. Raises `ShellEnded` when the jail is gone (a command
        that a limit of memory ended may take it along), `ValueError` for a command with NUL or over 1 MiB.
        """
        script = command.encode(errors="surrogateescape")
        if b"\0" in script or len(script) > MAX_COMMAND_BYTES:
            raise ValueError(f"a command has no NUL and at most {MAX_COMMAND_BYTES} bytes")
        async with self._lock:
            supervisor, control = self._inside
            exchange = Exchange(control, Before.now(supervisor.jail.init.pid), max_output_bytes, on_output)
            self._current = exchange
            try:
                exchange.lay_out(script, self._state, self._shell.rpartition("/")[2] == "bash")
                await supervisor.carry_out(exchange, timeout_s)
                for descriptor in exchange.leave():
                    supervisor.leftovers.add(descriptor)
                self._take_over(exchange.state_text)
                status = NOT_STARTED if exchange.status is None else exchange.status
                return exchange.result(status, self.cwd)
            finally:
                self._current = None
                exchange.close()

    async def jobs(self) -> list[Job]:
        """What runs in the jail: of the running command, and what earlier ones left in the background. At most 1000."""
        return await anyio.to_thread.run_sync(jobs.listed, self._inside[0].jail.init, self._before)

    async def signal(self, number: signal.Signals, pid: int | None = None) -> bool:
        """To the job with this pid and what it started, or (None) to the running command. False if there is none."""
        init = self._inside[0].jail.init
        return await anyio.to_thread.run_sync(jobs.signal_job, init, self._before(), number, pid)

    async def kill(self) -> None:
        """SIGKILL to everything in the jail, and with it the end of the shell."""
        await self.jail.kill()

    async def wait(self) -> None:
        """Until the jail is gone, whoever ended it."""
        await self.jail.wait()

    def _take_over(self, text: bytes) -> None:
        """The state that a command told. As a rule it is the one before, and need not be read again."""
        if text and text != self._told:
            state = told(text)
            if state is not None:
                self._state, self._told = state, text

    def _before(self) -> Before | None:
        return self._current.before if self._current else None

    @property
    def _inside(self) -> tuple[Supervisor, Control]:
        if self._supervisor is None or self._control is None:
            raise _not_open()
        return self._supervisor, self._control

    def _begin(self, opener: Opener, shell: str, cwd: str) -> None:
        if not shell.startswith("/") or not cwd.startswith("/") or "\0" in shell + cwd:
            raise PolicyError("The shell and its working directory must be absolute paths inside.")
        self._opener = opener
        self._shell = shell
        self._state = State(os.fsencode(cwd))
        self._told = b""
        self._lock = anyio.Lock(fast_acquire=True)
        self._current = None
        self._supervisor = None
        self._control = None
        self._opened = self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Supervisor]:
        await anyio.to_thread.run_sync(control.sweep)
        try:
            async with supervised(lambda: self._opener(self._lay_out)) as supervisor:
                yield supervisor
        finally:
            if self._control is not None:
                # Nothing goes on with it: its descriptor may soon be that of something else.
                self._control.close()
                self._control = None

    def _lay_out(self, policy: Policy) -> tuple[Policy, Sequence[str]]:
        """Make the folder of this shell, and take the environment of the jail over as the first state."""
        env = {name.encode(): os.fsencode(value) for name, value in argv.environment(policy, {}).items()}
        self._state = replace(self._state, env={name: value for name, value in env.items() if is_name(name)})
        self._control = control.make(policy.uid is not None)
        self._control.write("supervisor", scripts.supervisor(env))
        shown = Bind(self._control.path, scripts.INSIDE)
        command = ["/bin/sh", f"{scripts.INSIDE}/supervisor", self._shell]
        return replace(policy, binds=(*policy.binds, shown)), command


def _not_open() -> ShellEnded:
    return ShellEnded("The shell is not open.", "use it in `async with`")


def _opener(
    policy: Policy,
    bwrap: Bwrap | None,
    owner: records.Owner | None,
    folder: Path | None,
    labels: Mapping[str, str] | None,
) -> Opener:
    @asynccontextmanager
    async def opened(change: Change) -> AsyncIterator[Jail]:
        chosen = bwrap or (await examine()).chosen()
        changed, command = change(policy)
        async with open_jail(
            changed, command, bwrap=chosen, cwd="/", owner=owner, folder=folder, labels=labels, as_init=True
        ) as jail:
            yield jail

    return opened
