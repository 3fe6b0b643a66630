"""One command of a shell: its script, the fifos of its outputs, and what came through them."""

from __future__ import annotations

import fcntl
import os
import secrets
import termios
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress

from kandev_sandbox.pipes import PIPE_BYTES
from kandev_sandbox.shell import scripts
from kandev_sandbox.shell.capture import Capture
from kandev_sandbox.shell.control import Control
from kandev_sandbox.shell.jobs import Before
from kandev_sandbox.shell.result import OnOutput, ShellResult, Stream
from kandev_sandbox.shell.state import STATE_MAX_BYTES, State

CHUNK_BYTES = 256 << 10
_DEFAULT_PIPE_BYTES = 64 << 10
_SUFFIXES = ("", ".env", ".out", ".err", ".state")
_OUTPUTS: tuple[tuple[str, Stream], ...] = ((".out", "stdout"), (".err", "stderr"))


class Exchange:
    """Laid out before the command is requested; `close` it in any case.

    While it runs, this side holds a writing end of each fifo too: a command that closes its outputs has not ended.
    `status` is the supervisor's word for the exit code; None until then.
    """

    def __init__(self, control: Control, before: Before, limit_bytes: int, on_output: OnOutput | None) -> None:
        self.token = secrets.token_hex(4)
        self.before = before
        self.status: int | None = None
        self.timed_out = False
        self.on_output = on_output
        self._control = control
        self._started = time.monotonic()
        self._captures: dict[Stream, Capture] = {"stdout": Capture(limit_bytes), "stderr": Capture(limit_bytes)}
        self._readers: dict[int, Stream] = {}
        self._writers: list[int] = []
        self._state = bytearray()
        self._state_reader = -1

    def lay_out(self, command: bytes, state: State, posix: bool) -> None:
        """Write the scripts and make the fifos. Raises `OSError`."""
        control, token = self._control, self.token
        control.write(token, command)
        control.write(f"{token}.env", scripts.surrounding(token, state, posix, b"trap" in command))
        for suffix, stream in _OUTPUTS:
            control.fifo(token + suffix)
            self._readers[control.open(token + suffix, os.O_RDONLY)] = stream
            self._writers.append(control.open(token + suffix, os.O_WRONLY))
        control.fifo(f"{token}.state")
        self._state_reader = control.open(f"{token}.state", os.O_RDWR)

    def descriptors(self) -> Iterator[int]:
        """What to wait for, readable."""
        yield from self._readers
        yield self._state_reader

    async def take(self, descriptor: int) -> None:
        """Read what is there, once, and hand it on."""
        try:
            chunk = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return
        if descriptor == self._state_reader:
            self._take_state(chunk)
            return
        if len(chunk) == _DEFAULT_PIPE_BYTES:  # it was full: worth a larger one
            with suppress(OSError):  # over the user's share of pipe memory; only slower
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        await self._hand_on(self._readers[descriptor], chunk)

    async def take_rest(self) -> None:
        """After the end: what lies in the fifos now. A background job that goes on writing cannot prolong it."""
        for descriptor, stream in self._readers.items():
            rest = _unread(descriptor)
            while rest > 0 and (chunk := _taken(descriptor, rest)):
                rest -= len(chunk)
                await self._hand_on(stream, chunk)
        rest = _unread(self._state_reader)
        while rest > 0 and (chunk := _taken(self._state_reader, rest)):
            rest -= len(chunk)
            self._take_state(chunk)

    def leave(self) -> list[int]:
        """After `take_rest`: the reading ends of outputs that background jobs still hold; now the caller's."""
        for writer in self._writers:
            os.close(writer)
        self._writers.clear()
        held = [descriptor for descriptor in self._readers if _held(descriptor)]
        for descriptor in held:
            del self._readers[descriptor]
        return held

    @property
    def state_text(self) -> bytes:
        """What the command told at its end, for `state.told`; b"" if that was nothing, or too much."""
        return bytes(self._state) if len(self._state) <= STATE_MAX_BYTES else b""

    def note(self, text: bytes) -> None:
        """Something of the host's own for the command's stderr."""
        self._captures["stderr"].add(text)

    def result(self, status: int, cwd: str) -> ShellResult:
        out, err = self._captures["stdout"], self._captures["stderr"]
        return ShellResult(
            exit_code=status,
            stdout=out.value(),
            stderr=err.value(),
            stdout_bytes=out.total,
            stderr_bytes=err.total,
            timed_out=self.timed_out,
            duration_s=time.monotonic() - self._started,
            cwd=cwd,
        )

    def close(self) -> None:
        """Close what is open and remove the files."""
        for descriptor in (*self._readers, *self._writers, self._state_reader):
            if descriptor >= 0:
                os.close(descriptor)
        self._readers.clear()
        self._writers.clear()
        self._state_reader = -1
        self._control.remove(*(self.token + suffix for suffix in _SUFFIXES))

    async def _hand_on(self, stream: Stream, chunk: bytes) -> None:
        self._captures[stream].add(chunk)
        if self.on_output is not None and chunk:
            await self.on_output(stream, chunk)

    def _take_state(self, chunk: bytes) -> None:
        # One byte over the bound is enough to know; the rest is read only so that nobody waits.
        self._state += chunk[: STATE_MAX_BYTES + 1 - len(self._state)]


def _unread(descriptor: int) -> int:
    count = array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def _taken(descriptor: int, limit: int) -> bytes:
    """Some of what is there; b"" if a command of the same user has read its own output meanwhile."""
    try:
        return os.read(descriptor, min(limit, CHUNK_BYTES))
    except BlockingIOError:
        return b""


def _held(descriptor: int) -> bool:
    """Does anybody hold the other end? What has come meanwhile is lost, as all that comes after the end."""
    try:
        return os.read(descriptor, 1) != b""
    except BlockingIOError:
        return True
