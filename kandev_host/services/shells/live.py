"""One open shell: its jail from beginning to end, and the commands that take turns in it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from msgspec.structs import replace

from kandev_host.errors import Busy, Conflict, KandevError, TimedOut, Unavailable
from kandev_host.interfaces import CommandResult, ProcessSpec, Runtime, Shell, Terminal
from kandev_host.interfaces.shells import OnOutput
from kandev_host.models import ShellRow
from kandev_host.services.shells.audience import Audience
from kandev_host.services.shells.output import Output
from kandev_host.sessions.audit import Kept

log = logging.getLogger(__name__)

WAITING_COMMANDS = 16
INPUT_S = 10.0
DRAIN_S = 2.0
END_COMMAND_S = 10.0
ATTACHED_S = 10.0
READ_BYTES = 32 << 10
# What a terminal makes of these characters (termios: VINTR, VQUIT, VSUSP).
TYPED = {"INT": b"\x03", "QUIT": b"\x1c", "TSTP": b"\x1a"}
Size = tuple[int, int]


class LiveShell:
    """Somebody must be in `own` for as long as it lives. `opened` is set when its jail is there, or `failure` says why
    not; `gone`, by whoever owns it, when that is over and written down.
    """

    def __init__(
        self,
        row: ShellRow,
        runtime: Runtime,
        spec: ProcessSpec,
        size: Size,
        make_output: Callable[[Audience], Output],
        *,
        attached: bool,
        idle_s: float,
    ) -> None:
        self.row = row
        self.opened = anyio.Event()
        self.settled = anyio.Event()
        self.gone = anyio.Event()
        self.recorded = False
        self.failure: KandevError | None = None
        self.reason: str | None = None
        self.exit_code: int | None = None
        self.kept = Kept()
        self.audience = Audience(self._look)
        self.output = make_output(self.audience)
        self.waiting = 0
        self._runtime = runtime
        self._spec = spec
        self._size = size
        self._attached = attached
        self._idle_s = idle_s
        self._shell: Shell | None = None
        self._terminal: Terminal | None = None
        self._left = anyio.Event()
        self._news = anyio.Event()
        self._turn = asyncio.Lock()
        self._typing = asyncio.Lock()
        self._running: anyio.CancelScope | None = None
        self._used_at = self._followed_at = time.monotonic()

    # --- its life -----------------------------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Have it end; the first reason counts. Returns at once: `gone` says when."""
        if self.reason is None:
            self.reason = reason
        self._left.set()
        if self._running is not None:
            self._running.cancel()

    @property
    def ending(self) -> bool:
        return self._left.is_set()

    async def own(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Open it, and hold it until it ends or is told to. What keeps it from opening is its `failure`."""
        try:
            await prepare()
            await (self._as_terminal() if self.row.pty else self._as_shell())
        except KandevError as error:
            self._fail(error)
        except Exception as error:  # a plugin's own fault must end neither the host nor other shells
            log.exception("shell %s failed", self.row.id)
            self._fail(Unavailable(f"The runtime {self.row.runtime} failed: {type(error).__name__}"))
        finally:
            self._left.set()
            self.opened.set()

    def _fail(self, error: KandevError) -> None:
        if not self.opened.is_set():
            self.failure = error
        elif self.reason is None:
            self.reason = error.message

    async def _as_shell(self) -> None:
        async with self._runtime.open_shell(self._spec) as shell:
            self._shell = shell
            self.row = replace(self.row, cwd=shell.cwd)
            self.opened.set()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._until_dead, shell)
                tasks.start_soon(self._watch)
                tasks.start_soon(self.output.show_held)
                await self._left.wait()
                tasks.cancel_scope.cancel()
            await self._last_command()

    async def _until_dead(self, shell: Shell) -> None:
        await shell.wait()
        self.end("its jail ended")

    async def _last_command(self) -> None:
        """The one that runs is cancelled: let it be written down before its jail goes."""
        with anyio.move_on_after(END_COMMAND_S, shield=True):
            async with self._turn:
                pass

    async def _as_terminal(self) -> None:
        async with self._runtime.open_terminal(self._spec, *self._size) as terminal:
            self._terminal = terminal
            self.opened.set()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._show, terminal)
                tasks.start_soon(self._watch)
                await self._left.wait()
                tasks.cancel_scope.cancel()
        with anyio.move_on_after(DRAIN_S, shield=True):
            await self.output.flush()

    async def _show(self, terminal: Terminal) -> None:
        """What it shows, to its end; what runs on in the background may hold it open, but not for long."""
        async with anyio.create_task_group() as tasks:

            async def pump() -> None:
                while data := await terminal.receive(READ_BYTES):
                    self._used_at = time.monotonic()
                    self.kept.take("terminal", data)
                    await self.output.take("terminal", data)

            tasks.start_soon(pump)
            code = await terminal.wait()
            tasks.cancel_scope.deadline = anyio.current_time() + DRAIN_S
        self.exit_code = code if code >= 0 else 128 - code
        self.end("it exited")

    async def _watch(self) -> None:
        """End it when nobody needs it any more, once whoever opened it has it: its opening may have taken long."""
        await self.settled.wait()
        self._used_at = self._followed_at = time.monotonic()
        while True:
            self._news = anyio.Event()
            due, reason = self._due()
            with anyio.move_on_after(max(0.0, due - time.monotonic())) as waiting:
                await self._news.wait()
            if waiting.cancelled_caught and self._due()[0] <= time.monotonic():
                self.end(reason)

    def _due(self) -> tuple[float, str]:
        """When it is to end, if nothing happens until then, and why."""
        if len(self.audience):
            return float("inf"), ""
        if self._attached:
            return self._followed_at + ATTACHED_S, "nobody follows it any more"
        if self.waiting:
            return float("inf"), ""
        return max(self._used_at, self._followed_at) + self._idle_s, f"nothing was done in it for {self._idle_s:g} s"

    def _look(self) -> None:
        self._followed_at = time.monotonic()
        self._news.set()

    # --- what is done in it -------------------------------------------------------------------------------------------

    @property
    def cwd(self) -> str:
        return self.row.cwd if self._shell is None else self._shell.cwd

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the commands before. Raises `Busy` behind too many, `Conflict` when the shell has ended."""
        if self.waiting > WAITING_COMMANDS:
            raise Busy(f"{WAITING_COMMANDS} commands wait for this shell already")
        self.waiting += 1
        self._news.set()
        try:
            async with self._turn:
                self.shell()
                yield
        finally:
            self.waiting -= 1
            self._used_at = time.monotonic()
            self._news.set()

    async def run(self, command: str, timeout_s: float, max_output_bytes: int, on_output: OnOutput) -> CommandResult:
        """Whose turn it is. Raises as `Shell.run`, and `Conflict` when the shell is closed meanwhile."""
        shell = self.shell()
        try:
            with anyio.CancelScope() as self._running:
                return await shell.run(
                    command, timeout_s=timeout_s, max_output_bytes=max_output_bytes, on_output=on_output
                )
        finally:
            self._running = None
        raise self.closed()

    def closed(self) -> Conflict:
        why = f": {self.reason}" if self.reason else ""
        return Conflict(f"The shell is closed{why}", state="closed", shell_id=self.row.id)

    def shell(self) -> Shell:
        """Raises `Conflict` when it has ended, or is a terminal."""
        if self.ending:
            raise self.closed()
        if self._shell is None:
            raise Conflict("This shell is a terminal: type with shell.input, read with shell.read", state="terminal")
        return self._shell

    def terminal(self) -> Terminal:
        """Raises `Conflict` when it has ended, or is none."""
        if self.ending:
            raise self.closed()
        if self._terminal is None:
            raise Conflict(
                "This shell is no terminal: it runs commands (shell.run), and they have no input; open one with pty",
                state="shell",
            )
        return self._terminal

    async def type(self, data: bytes) -> None:
        """In the order of the calls. Raises `TimedOut` when nobody reads, `Conflict` as `terminal`."""
        terminal = self.terminal()
        self._used_at = time.monotonic()
        self._news.set()
        try:
            with anyio.fail_after(INPUT_S):
                async with self._typing:
                    await terminal.send(data)
        except TimeoutError:
            late = f"What runs in the terminal has read no input for {INPUT_S:g} s; part of it may be typed"
            raise TimedOut(late) from None
        except BrokenPipeError:
            raise Conflict("What ran in the terminal has ended", state="closed", shell_id=self.row.id) from None

    async def signal(self, name: str, pid: int | None) -> bool:
        """See `Shell.signal`; of a terminal, what it stands for."""
        if not self.row.pty:
            return await self.shell().signal(signal.Signals[f"SIG{name}"], pid)
        terminal = self.terminal()
        if pid is not None:
            raise Conflict("The jobs of a terminal have no pid here: type kill in it", state="terminal")
        if (typed := TYPED.get(name)) is not None:
            await self.type(typed)
        elif name in {"HUP", "TERM"}:
            await terminal.terminate()
        elif name == "KILL":
            await terminal.kill()
        else:
            raise Conflict(f"A terminal cannot be sent {name}: HUP, INT, KILL, QUIT, TERM or TSTP", state="terminal")
        return True
