"""terminal/*: commands that an agent has the host run, each in a new jail of the agent's workspace.

ACP: Terminals. Only for agent types that are offered terminals. They end with the session at the latest.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import anyio
import anyio.abc
import anyio.lowlevel
from msgspec import Meta, Raw

from kandev_host.errors import KandevError
from kandev_host.interfaces import ProcessSpec, Runtime
from kandev_host.models import new_id
from kandev_host.protocol import jsonrpc
from kandev_host.protocol.acp import Camel, Json
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.audit import CommandAudit, Entry, Stream
from kandev_host.sessions.inside import beside, check_path, invalid, params_of
from kandev_host.sessions.later import LaterProcess

logger = logging.getLogger(__name__)

TERMINALS = 16
OUTPUT_BYTES = 1 << 20
COMMAND_BYTES = 100 << 10
DRAIN_S = 2.0


class EnvVariable(Camel):
    name: str
    value: str


class CreateTerminal(Camel):
    command: str
    args: list[str] | None = None
    env: list[EnvVariable] | None = None
    cwd: str | None = None
    output_byte_limit: Annotated[int, Meta(ge=0)] | None = None


class OfTerminal(Camel):
    terminal_id: str


class Output:
    """The last bytes that were said, at most `limit_bytes`, from the beginning of a character on."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()
        self.truncated = False

    def take(self, chunk: bytes) -> None:
        self._kept += chunk
        over = len(self._kept) - self._limit
        if over <= 0:
            return
        self.truncated = True
        while over < len(self._kept) and self._kept[over] & 0xC0 == 0x80:  # inside a character of UTF-8
            over += 1
        del self._kept[:over]

    def text(self) -> str:
        return self._kept.decode(errors="replace")


class Terminal:
    """One command. `own` holds it until `process.leave`."""

    def __init__(self, runtime: Runtime, limit_bytes: int) -> None:
        self.process = LaterProcess(runtime)
        self.killed = False
        self.output = Output(limit_bytes)
        self.exit_code: int | None = None
        self.ended = anyio.Event()

    async def own(self, spec: ProcessSpec, started: anyio.Event, audited: AbstractAsyncContextManager[Entry]) -> None:
        """From its start to its end. What keeps it from starting is the end of its output."""
        try:
            async with audited as entry, anyio.create_task_group() as tasks:
                tasks.start_soon(self.process.own)
                try:
                    await self._live(spec, started, entry)
                finally:
                    self.process.leave()
        except* KandevError as group:
            logger.warning("a terminal did not end as it should: %s", group.exceptions[0])
            if not started.is_set():  # it was not written down: then it does not run
                self.output.take(str(group.exceptions[0]).encode())
        finally:
            started.set()
            self.ended.set()

    async def _live(self, spec: ProcessSpec, started: anyio.Event, entry: Entry) -> None:
        try:
            await self.process.start(spec)
            await self.process.close_stdin()
        except KandevError as error:
            self.output.take(error.message.encode())
            entry.reason = error.message
            return
        started.set()
        async with anyio.create_task_group() as drains:
            drains.start_soon(self._drain, self.process.receive, "stdout", entry)
            drains.start_soon(self._drain, self.process.receive_stderr, "stderr", entry)
            code = self.exit_code = await self.process.wait()
            entry.exit_code = code if code >= 0 else 128 - code
            entry.reason = "the agent ended it" if self.killed else self.process.ending
            drains.cancel_scope.deadline = anyio.current_time() + DRAIN_S  # a child may hold its output open

    async def _drain(self, receive: Callable[[], Awaitable[bytes]], stream: Stream, entry: Entry) -> None:
        while chunk := await receive():
            self.output.take(chunk)
            entry.kept.take(stream, chunk)
            await anyio.lowlevel.checkpoint()

    @property
    def status(self) -> Json:
        """ACP: TerminalExitStatus. A code below 0 is a signal's."""
        code = self.exit_code
        if code is None or code >= 0:
            return {"exitCode": code, "signal": None}
        return {"exitCode": None, "signal": "SIGKILL" if code == -9 else str(-code)}


class Terminals:
    """The terminals of one session; enter `open` for as long as it lives. `may_run` says whether the run may now."""

    def __init__(
        self,
        runtime: Runtime,
        spec: ProcessSpec,
        session_id: Callable[[], str | None],
        may_run: Callable[[], bool],
        audit: CommandAudit,
    ) -> None:
        self._runtime = runtime
        self._spec = spec
        self._session_id = session_id
        self._may_run = may_run
        self._audit = audit
        self._open: dict[str, Terminal] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self.serve: Mapping[str, Any] = {
            "terminal/create": self.create,
            "terminal/output": self.output,
            "terminal/wait_for_exit": self.wait_for_exit,
            "terminal/kill": self.kill,
            "terminal/release": self.release,
        }

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Leaving it kills all terminals."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def create(self, params: Raw) -> Json:
        """Start a command; answers at once. Raises `RpcError`."""
        wanted = params_of(params, CreateTerminal, self._session_id())
        spec = self._spec_of(wanted)
        if self._tasks is None:
            raise RpcError(jsonrpc.INTERNAL_ERROR, "The session is ending")
        if not self._may_run():
            raise invalid("this run may read only")
        if len(self._open) >= TERMINALS:
            raise RpcError(jsonrpc.INVALID_REQUEST, f"{TERMINALS} terminals are open: release one")
        limit = OUTPUT_BYTES if wanted.output_byte_limit is None else min(OUTPUT_BYTES, wanted.output_byte_limit)
        terminal_id = new_id()
        terminal = self._open[terminal_id] = Terminal(self._runtime, limit)
        started = anyio.Event()
        # The variables are left out, as they may be secrets.
        text = shlex.join([wanted.command, *wanted.args]) if wanted.args else wanted.command
        audited = self._audit.of(text, self._cwd_of(wanted))
        self._tasks.start_soon(terminal.own, spec, started, audited)
        await started.wait()
        return {"terminalId": terminal_id}

    def _spec_of(self, wanted: CreateTerminal) -> ProcessSpec:
        """A command without arguments is a line for the shell.

        What is run is found inside: a program that an agent names is never looked up, and bound, by the host.
        """
        words = (wanted.command, *(wanted.args or ()))
        env = {variable.name: variable.value for variable in wanted.env or ()}
        if not wanted.command.strip() or any("\0" in text for text in (*words, *env, *env.values())):
            raise invalid("this is no command")
        if sum(len(text.encode()) + 1 for text in (*words, *env, *env.values())) > COMMAND_BYTES:
            raise invalid(f"command and environment have more than {COMMAND_BYTES} bytes")
        if any(not name or "=" in name for name in env):
            raise invalid("a variable has no name")
        run = ("sh", "-c", wanted.command) if not wanted.args else ("sh", "-c", 'exec "$@"', "sh", *words)
        cwd = self._cwd_of(wanted)
        # The variables are the command's, not the runtime's: `env` sets them inside.
        given = ("env", "--", *(f"{name}={value}" for name, value in env.items())) if env else ()
        return beside(self._spec, ("sh", "-c", 'cd -- "$0" && exec "$@"', cwd, *given, *run))

    def _cwd_of(self, wanted: CreateTerminal) -> str:
        return self._spec.cwd if wanted.cwd is None else check_path(wanted.cwd)

    async def output(self, params: Raw) -> Json:
        terminal = self._of(params)
        found: Json = {"output": terminal.output.text(), "truncated": terminal.output.truncated}
        if terminal.ended.is_set():
            found["exitStatus"] = terminal.status
        return found

    async def wait_for_exit(self, params: Raw) -> Json:
        terminal = self._of(params)
        await terminal.ended.wait()
        return terminal.status

    async def kill(self, params: Raw) -> Json:
        """Its output and its exit status stay to be read."""
        await self._end(self._of(params))
        return {}

    async def release(self, params: Raw) -> Json:
        """Nothing of it stays."""
        terminal = self._of(params)
        self._open = {name: each for name, each in self._open.items() if each is not terminal}
        await self._end(terminal)
        return {}

    async def _end(self, terminal: Terminal) -> None:
        if not terminal.ended.is_set():
            terminal.killed = True
            await terminal.process.kill()
            await terminal.ended.wait()

    def _of(self, params: Raw) -> Terminal:
        terminal_id = params_of(params, OfTerminal, self._session_id()).terminal_id
        found = self._open.get(terminal_id)
        if found is None:
            raise RpcError(jsonrpc.NOT_FOUND, f"Resource not found: terminal {terminal_id[:100]}")
        return found
