"""A runtime whose shells do as they are told by the test, where a jail would do as it likes."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from kandev_host.errors import Unavailable, ValidationFailed
from kandev_host.interfaces import (
    Availability,
    CommandResult,
    Job,
    OnOutput,
    Owned,
    PlaceUse,
    ProcessSpec,
    Result,
    Stats,
)

CHUNK = 1 << 16


@dataclass
class ScriptedShell:
    """`say TEXT`, `err TEXT`, `cd PATH`, `exit N`, `flood BYTES`, `bytes HEX`, `wait` (for `go` or a signal), `die`."""

    spec: ProcessSpec
    ref: str = "ref"
    cwd: str = "/workspace"
    ran: list[str] = field(default_factory=list)
    waiting: anyio.Event = field(default_factory=anyio.Event)
    go: anyio.Event = field(default_factory=anyio.Event)
    dead: anyio.Event = field(default_factory=anyio.Event)
    cancelled: int = 0
    signals: list[tuple[int, int | None]] = field(default_factory=list)
    written: int = 0

    async def run(
        self,
        command: str,
        *,
        timeout_s: float = 60.0,
        max_output_bytes: int = 1 << 20,
        on_output: OnOutput | None = None,
    ) -> CommandResult:
        assert on_output is not None
        self.ran.append(command)
        out: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        code, timed_out = 0, False
        try:
            with anyio.move_on_after(timeout_s) as limit:
                for line in command.splitlines():
                    word, _, rest = line.partition(" ")
                    data = {"say": rest.encode() + b"\n", "err": rest.encode() + b"\n"}.get(word)
                    if word == "bytes":
                        data = bytes.fromhex(rest)
                    if word == "flood":
                        for _ in range(int(rest) // CHUNK):
                            await on_output("stdout", b"x" * CHUNK)
                            self.written += CHUNK
                            await anyio.lowlevel.checkpoint()
                    elif data is not None:
                        stream: Any = "stderr" if word == "err" else "stdout"
                        out[stream] += data
                        await on_output(stream, data)
                    elif word == "cd":
                        self.cwd = rest
                    elif word == "exit":
                        code = int(rest)
                    elif word == "wait":
                        self.waiting.set()
                        await self.go.wait()
                    elif word == "die":
                        self.dead.set()
                        raise Unavailable("The jail is gone")
            if limit.cancelled_caught:
                code, timed_out = 137, True
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        return CommandResult(
            exit_code=code,
            stdout=out["stdout"][:max_output_bytes],
            stderr=out["stderr"],
            stdout_bytes=len(out["stdout"]),
            stderr_bytes=len(out["stderr"]),
            truncated=len(out["stdout"]) > max_output_bytes,
            timed_out=timed_out,
            duration_s=0.25,
            cwd=self.cwd,
        )

    async def jobs(self) -> list[Job]:
        return [Job(pid=7, command="sleep 100", state="background", age_s=1.5)]

    async def signal(self, number: signal.Signals, pid: int | None = None) -> bool:
        self.signals.append((number, pid))
        self.go.set()
        return pid in {None, 7}

    async def wait(self) -> None:
        await self.dead.wait()


@dataclass
class ScriptedTerminal:
    """Echoes what is typed; Ctrl-D ends it with 3."""

    spec: ProcessSpec
    size: tuple[int, int]
    ref: str = "terminal"
    reads: bool = True
    code: int = 3
    shown: bytes = b"$ "
    news: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)
    stuck: anyio.Event = field(default_factory=anyio.Event)

    def _turn(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while not self.shown:
            if self.ended.is_set():
                return b""
            await self.news.wait()
        part, self.shown = self.shown[:max_bytes], self.shown[max_bytes:]
        return part

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        return b""

    async def send(self, data: bytes) -> None:
        if self.ended.is_set():
            raise BrokenPipeError
        if not self.reads:
            await anyio.sleep_forever()
        if b"\x04" in data:
            self._end(self.code)
        else:
            self.show(data)

    def show(self, data: bytes) -> None:
        self.shown += data
        self._turn()

    def _end(self, code: int) -> None:
        self.code = code
        self.ended.set()
        self._turn()

    async def close_stdin(self) -> None: ...

    async def wait(self) -> int:
        await self.ended.wait()
        return self.code

    async def terminate(self) -> None:
        self._end(-signal.SIGTERM)

    async def kill(self) -> None:
        self._end(-signal.SIGKILL)

    async def stats(self) -> Stats:
        return Stats()

    async def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)


class ScriptedRuntime:
    """`shells` and `terminals` are those that were opened, `left` the workspaces whose shells are gone."""

    name = "scripted"
    confines = True

    def __init__(self) -> None:
        self.shells: list[ScriptedShell] = []
        self.terminals: list[ScriptedTerminal] = []
        self.prepared: list[str] = []
        self.removed: list[str] = []
        self.left: list[str] = []
        self.refuses: Exception | None = None
        self.slow: anyio.Event | None = None
        self.opening = False

    @asynccontextmanager
    async def open_shell(self, spec: ProcessSpec) -> AsyncIterator[ScriptedShell]:
        self.opening = True
        if self.slow is not None:
            await self.slow.wait()
        if self.refuses is not None:
            raise self.refuses
        self.shells.append(ScriptedShell(spec))
        try:
            yield self.shells[-1]
        finally:
            self.left.append(spec.workspace_id)

    @asynccontextmanager
    async def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> AsyncIterator[ScriptedTerminal]:
        self.terminals.append(ScriptedTerminal(spec, (columns, rows)))
        try:
            yield self.terminals[-1]
        finally:
            self.left.append(spec.workspace_id)

    async def prepare(self, workspace_id: str) -> None:
        self.prepared.append(workspace_id)

    async def remove(self, workspace_id: str) -> None:
        self.removed.append(workspace_id)

    def check_allow(self, entries: Sequence[str]) -> None:
        if "?" in entries:
            raise ValidationFailed("allow", "? is no name")

    def allow(self, labels: Mapping[str, str], entries: Sequence[str]) -> None: ...

    async def run(self, spec: ProcessSpec, **_how: Any) -> Result:
        if spec.labels.get("purpose") == "git":
            return Result(0, b"0\n", b"")  # there is no work that is nowhere else
        raise Unavailable("Nothing else is run here but shells")

    async def use(self, workspace_id: str) -> PlaceUse:
        return PlaceUse(bytes=0, inodes=0)

    async def probe(self) -> Availability:
        return Availability(True)

    async def locate(self, command: str, image: str | None = None) -> Availability:
        return Availability(True)

    async def list_owned(self) -> list[Owned]:
        return []
